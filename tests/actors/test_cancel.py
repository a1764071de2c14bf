"""Cancelling tasks, and tasks that say themselves how they go on, on a real Ray."""

import pytest

from asyncproc.actors.answers import Cancelled
from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger
from tests.eventually import eventually


def test_a_task_that_waits_is_cancelled_at_once(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy()
    (task,) = system.enqueue("Note", {"ledger": ledger.path, "n": 1}, delay_s=60.0)

    assert system.cancel(task, "not needed") is Cancelled.ENDED
    ended = system.task(task)
    assert (ended.state, ended.error, ended.worker) == (State.CANCELLED, "not needed", None)
    assert system.cancel(task, "again") is Cancelled.GONE
    assert ledger.runs() == {}


def test_a_running_task_heeds_the_wish_to_cancel_it(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy()
    heeds, succeeds = system.enqueue(
        "Heed",
        {"ledger": ledger.path, "n": 1, "how": "heeds"},
        {"ledger": ledger.path, "n": 2, "how": "succeeds"},
    )
    eventually(lambda: len(ledger.traces()) == 2)

    for task in (heeds, succeeds):
        assert system.cancel(task, "enough") is Cancelled.ASKED

    assert (system.ended(heeds).state, system.task(heeds).error) == (State.CANCELLED, "enough")
    assert (system.ended(succeeds).state, system.task(succeeds).result) == (State.SUCCEEDED, b'"in time"')
    assert ledger.runs() == {1: 1, 2: 1}


def test_an_async_task_is_cancelled(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy()
    (task,) = system.enqueue("HangAsync", {"ledger": ledger.path, "n": 1}, timeout_s=0.0)
    eventually(ledger.traces)

    assert system.cancel(task, "enough") is Cancelled.ASKED
    assert system.ended(task).state is State.CANCELLED


def test_a_deaf_task_ends_with_its_process_and_its_neighbours_are_not_charged(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1, "concurrency": 2})
    deaf, neighbour = system.enqueue(
        "Heed", {"ledger": ledger.path, "n": 1, "how": "is deaf"}, {"ledger": ledger.path, "n": 2, "how": "succeeds"}
    )
    eventually(lambda: len(ledger.traces()) == 2)
    before = set(system.workers())

    assert system.cancel(deaf, "enough", grace_s=0.2) is Cancelled.ASKED
    assert system.ended(deaf).state is State.CANCELLED
    eventually(lambda: system.workers() and not before & set(system.workers()))
    eventually(lambda: ledger.runs()[2] == 2)
    system.cancel(neighbour, "you too")
    ended = system.ended(neighbour)
    assert (ended.state, ended.attempt, ended.errors) == (State.SUCCEEDED, 1, b"[]")


def test_what_waits_at_its_worker_is_taken_back_and_cancelled(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1, "overrun": "1h"})
    system.enqueue("Work", *[{"ledger": ledger.path, "n": -1, "seconds": 0.001}] * 20)
    eventually(lambda: len(ledger.traces()) == 20)
    long, *others = system.enqueue(
        "Work",
        {"ledger": ledger.path, "n": 0, "seconds": 2.0},
        *[{"ledger": ledger.path, "n": n, "seconds": 0.001} for n in range(1, 6)],
    )
    aboard = eventually(lambda: [task for task in others if system.task(task).state is State.RUNNING])

    assert system.cancel(aboard[-1], "not begun") is Cancelled.ASKED
    assert system.ended(aboard[-1]).state is State.CANCELLED
    assert {system.ended(task).state for task in (long, *others) if task != aboard[-1]} == {State.SUCCEEDED}


@pytest.mark.parametrize(
    ("how", "state", "runs", "attempt", "errors"),
    [
        ("retry", State.SUCCEEDED, 2, 2, ["Retry"]),
        ("snooze", State.SUCCEEDED, 2, 1, []),
        ("fail", State.FAILED, 1, 1, ["Fail"]),
    ],
)
def test_a_task_says_itself_how_it_goes_on(
    deploy: Deploy, ledger: Ledger, how: str, state: State, runs: int, attempt: int, errors: list[str]
) -> None:
    system = deploy()
    (task,) = system.enqueue("Say", {"ledger": ledger.path, "n": 1, "how": how})
    ended = system.ended(task)
    assert (ended.state, ended.attempt) == (state, attempt)
    assert ledger.runs() == {1: runs}
    assert [error["type"] for error in system.errors(task)] == errors
