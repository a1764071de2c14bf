"""Priorities and aging, read from the order in which the tasks of one worker began."""

from pathlib import Path
from typing import Any

import pytest

from asyncproc.clock import wall_now
from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System
from tests.eventually import eventually

LOW, SOON, LATE = 100, range(1, 11), range(11, 21)


def test_a_low_priority_task_runs_before_a_stream_of_high_ones_ends(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    # Ten levels are worth 10 ms of waiting.
    system = deploy(queue=_one_at_a_time(aging="1ms"))

    order = _low_one_amid_a_stream(system, ledger, gate)

    assert order == [*SOON, LOW, *LATE]


def test_strict_priority_lets_a_low_task_wait_for_the_end_of_the_stream(
    deploy: Deploy, ledger: Ledger, gate: Path
) -> None:
    system = deploy(queue=_one_at_a_time(aging="off"))

    order = _low_one_amid_a_stream(system, ledger, gate)

    assert order == [*SOON, *LATE, LOW]


@pytest.mark.parametrize("aging", ["1ms", "60s", "off"])
def test_tasks_of_one_priority_run_in_the_order_they_came(
    deploy: Deploy, ledger: Ledger, gate: Path, aging: str
) -> None:
    system = deploy(queue=_one_at_a_time(aging=aging))
    numbers = list(range(1, 30))
    _occupy(system, ledger, gate)

    for n in numbers:
        system.enqueue("Note", {"ledger": ledger.path, "n": n})

    assert _order_once_the_gate_opens(system, ledger, gate, len(numbers)) == numbers


def _one_at_a_time(aging: str) -> dict[str, Any]:
    """One worker that is given nothing ahead of time: tasks begin in the order of the claims."""
    return {"workerPoolSize": 1, "prefetch": "1us", "aging": aging}


def _low_one_amid_a_stream(system: System, ledger: Ledger, gate: Path) -> list[int]:
    """A low task, high ones of the same instant, and more of them once the wait of the low one outweighs their lead."""
    _occupy(system, ledger, gate)
    tasks = system.make("Note", {"ledger": ledger.path, "n": LOW}, priority=0)
    tasks += system.make("Note", *({"ledger": ledger.path, "n": n} for n in SOON), priority=10)
    system.send(tasks)
    outweighed_at = wall_now() + 0.05
    eventually(lambda: wall_now() > outweighed_at)
    for n in LATE:
        system.enqueue("Note", {"ledger": ledger.path, "n": n}, priority=10)
    return _order_once_the_gate_opens(system, ledger, gate, 1 + len(SOON) + len(LATE))


def _occupy(system: System, ledger: Ledger, gate: Path) -> None:
    system.enqueue("Hold", {"ledger": ledger.path, "n": 0, "gate": str(gate)}, priority=100)
    eventually(ledger.traces)


def _order_once_the_gate_opens(system: System, ledger: Ledger, gate: Path, waiting: int) -> list[int]:
    assert system.states() == {State.RUNNING: 1, State.QUEUED: waiting}
    gate.touch()
    eventually(lambda: system.states() == {State.SUCCEEDED: waiting + 1})
    return ledger.order()[1:]
