"""Leases that are called back, with real workers that hold more than they can start at once.

Every type counts as short here, whatever a run took: each worker is given all there is.
"""

from pathlib import Path
from typing import Any, Final

from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System
from tests.eventually import eventually

URGENT: Final = 100


def test_a_better_task_begins_before_those_that_wait_at_a_worker(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy(queue=_all_ahead(workers=1))
    numbers = list(range(1, 20))
    _begin(system, ledger, gate, numbers)

    system.enqueue("Note", {"ledger": ledger.path, "n": URGENT}, priority=50)
    eventually(lambda: system.states()[State.RUNNING] == 1)
    gate.touch()
    eventually(lambda: len(ledger.order()) == len(numbers) + 2)

    assert ledger.order() == [0, URGENT, *numbers]


def test_what_waits_behind_a_slow_task_gets_away_to_another_worker(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy(queue=_all_ahead(workers=2))
    numbers = list(range(1, 20))
    _begin(system, ledger, gate, numbers)

    eventually(lambda: len(ledger.order()) == len(numbers) + 1)
    workers = {trace.n: trace.worker for trace in ledger.traces()}
    gate.touch()
    eventually(lambda: system.states() == {State.SUCCEEDED: len(numbers) + 3})

    assert {workers[n] for n in numbers} == {*workers.values()} - {workers[0]}
    assert set(ledger.runs().values()) == {1}


def _all_ahead(workers: int) -> dict[str, Any]:
    return {"workerPoolSize": workers, "prefetch": "1000s"}


def _begin(system: System, ledger: Ledger, gate: Path, numbers: list[int]) -> None:
    """A task that holds its slot, and others that were granted with it; both types are known to be short."""
    open_gate = gate.with_name("open")
    open_gate.touch()
    elsewhere = str(gate.with_name("other ledger"))
    system.enqueue("Hold", {"ledger": elsewhere, "n": 0, "gate": str(open_gate)})
    system.enqueue("Note", {"ledger": elsewhere, "n": 0})
    eventually(lambda: system.states() == {State.SUCCEEDED: 2})
    tasks = system.make("Hold", {"ledger": ledger.path, "n": 0, "gate": str(gate)}, priority=1)
    tasks += system.make("Note", *({"ledger": ledger.path, "n": n} for n in numbers))
    system.send(tasks)
    eventually(ledger.order)
