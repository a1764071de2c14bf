"""Tasks that do not end: they fail by their time limit, and the worker they hold is replaced."""

from functools import partial
from pathlib import Path

import pytest

from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System
from tests.eventually import eventually


@pytest.mark.parametrize("how", ["sleeps", "spins", "is deaf"])
def test_a_task_that_hangs_fails_and_its_worker_is_replaced(deploy: Deploy, ledger: Ledger, how: str) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    (hung,) = system.enqueue("Hang", {"ledger": ledger.path, "n": 1, "how": how})
    ended = system.ended(hung)
    (after,) = system.enqueue("Note", {"ledger": ledger.path, "n": 2})

    assert system.ended(after).state is State.SUCCEEDED
    assert (ended.state, ended.attempt) == (State.FAILED, 1)
    assert (ended.error or "").startswith("TimeLimitExceeded: the attempt ran for longer than 0.5 s")
    assert ledger.runs() == {1: 1, 2: 1}
    assert len({trace.pid for trace in ledger.traces()}) == 2


def test_a_task_that_keeps_the_interpreter_to_itself_fails_alone(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    (hung,) = system.enqueue("Hang", {"ledger": ledger.path, "n": 1, "how": "keeps the interpreter"})
    ended = system.ended(hung)

    assert (ended.state, ended.attempt) == (State.FAILED, 1)
    assert (ended.error or "").startswith("TimeLimitExceeded: ")
    # Once to be suspected, once alone to prove it.
    assert ledger.runs() == {1: 2}


def test_the_neighbours_of_a_task_that_hangs_run_again_uncharged(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy(queue={"workerPoolSize": 1, "concurrency": 3})
    neighbours = system.enqueue("Hold", *({"ledger": ledger.path, "n": n, "gate": str(gate)} for n in (1, 2)))
    eventually(lambda: len(ledger.traces()) == 2)
    (hung,) = system.enqueue("HangAsync", {"ledger": ledger.path, "n": 3})
    assert system.ended(hung).state is State.FAILED
    eventually(lambda: len(ledger.traces()) == 5)
    gate.touch()

    ended = [system.ended(task) for task in neighbours]
    assert [(task.state, task.attempt, task.errors) for task in ended] == [(State.SUCCEEDED, 1, b"[]")] * 2
    assert ledger.runs() == {1: 2, 2: 2, 3: 1}


def test_a_task_has_the_limit_of_its_request_before_that_of_its_type(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    (hung,) = system.send(system.make("Hang", {"ledger": ledger.path, "n": 1, "how": "sleeps"}, timeout_s=0.25))
    ended = system.ended(hung)
    assert (ended.timeout_s, ended.soft_timeout_s) == (0.25, 0.0)
    assert "longer than 0.25 s" in (ended.error or "")


def test_a_worker_is_replaced_after_so_many_tasks_and_nothing_runs_twice(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 2, "recycleAfter": 50})
    enqueued = 0
    # In parts: a worker may be through with all it holds before it comes to leave.
    while len({trace.pid for trace in ledger.traces()}) < 3 and enqueued < 3_000:
        part = range(enqueued, enqueued + 50)
        system.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in part))
        enqueued = part.stop
        eventually(partial(_all_succeeded, system, enqueued))
    assert ledger.runs() == dict.fromkeys(range(enqueued), 1)
    assert len({trace.pid for trace in ledger.traces()}) >= 3


def test_a_worker_is_replaced_once_it_takes_too_much_memory(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1, "recycleAbove": 64 * 1024 * 1024})
    pid = eventually(system.workers)
    system.enqueue("Work", *({"ledger": ledger.path, "n": n, "seconds": 0.05} for n in range(40)))
    eventually(lambda: system.states() == {State.SUCCEEDED: 40})
    assert set(ledger.runs().values()) == {1}
    assert len({trace.pid for trace in ledger.traces()}) >= 2
    assert pid


def _all_succeeded(system: System, number: int) -> bool:
    return system.states() == {State.SUCCEEDED: number}
