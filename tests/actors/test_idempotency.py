"""A key settles what became of a request, whatever became of the process that took it."""

from collections.abc import Callable
from typing import Any

import psycopg
import ray

from asyncproc.actors.answers import Cause, Refusal
from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System, keyed
from tests.eventually import eventually


def note(system: System, ledger: Ledger, n: int = 1) -> list[Any]:
    return system.make("Note", {"ledger": ledger.path, "n": n})


def test_a_queue_actor_killed_between_commit_and_answer_leaves_one_task_and_one_answer(
    deploy: Deploy, ledger: Ledger, database: str, standby: Callable[[str], None]
) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    tasks = note(system, ledger)
    standby("nobody")
    first = system.start_once("k", tasks)
    eventually(lambda: _commits_that_wait(database))

    system.kill_queue()
    standby("")
    others = [system.start_once("k", note(system, ledger)) for _ in range(3)]

    # The first call is repeated by the gateway, the others stand for a client that had no answer.
    answer = keyed("k", tasks).answer
    assert [call.result(timeout=60) for call in (first, *others)] == [answer] * 4
    assert system.ended(tasks[0][0]).state is State.SUCCEEDED
    assert system.start_once("k", note(system, ledger)).result(timeout=60) == answer
    assert system.states() == {State.SUCCEEDED: 1}
    assert ledger.runs() == {1: 1}


def test_two_replicas_with_one_key_at_once_make_one_task(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    requests = [keyed("k", note(system, ledger)) for _ in range(20)]

    calls = [system.queue().enqueue_once.remote([request]) for request in requests]
    outcomes = [outcome for (outcome,) in ray.get(calls)]

    (done,) = [request for request, outcome in zip(requests, outcomes, strict=True) if outcome is None]
    assert [outcome for outcome in outcomes if outcome is not None] == [done.answer] * 19
    assert [record.id for record in system.tasks()] == [done.tasks[0][0]]


def test_a_late_first_call_makes_no_second_task(deploy: Deploy, ledger: Ledger) -> None:
    """The repetition was served by another reign, and its task has ended."""
    system = deploy(queue={"workerPoolSize": 1})
    (outcome,) = ray.get(system.queue().enqueue_once.remote([keyed("k", again := note(system, ledger))]))
    system.ended(again[0][0])
    system.kill_queue()
    eventually(lambda: system.is_whole(epoch=2))

    (late,) = ray.get(system.queue().enqueue_once.remote([keyed("k", note(system, ledger))]))
    (other,) = ray.get(system.queue().enqueue_once.remote([keyed("k", note(system, ledger), b"another body")]))

    assert outcome is None
    assert late == keyed("k", again).answer
    assert isinstance(other, Refusal)
    assert other.cause is Cause.KEY
    assert ledger.runs() == {1: 1}


def test_a_caller_that_is_gone_does_not_undo_its_request(
    deploy: Deploy, ledger: Ledger, database: str, standby: Callable[[str], None]
) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    tasks = note(system, ledger)
    standby("nobody")
    call = system.start_once("k", tasks)
    eventually(lambda: _commits_that_wait(database))
    call.cancel()

    repetition = system.start_once("k", note(system, ledger))
    standby("")

    assert repetition.result(timeout=60) == keyed("k", tasks).answer
    assert system.ended(tasks[0][0]).state is State.SUCCEEDED
    assert ledger.runs() == {1: 1}


def _commits_that_wait(database: str) -> bool:
    with psycopg.connect(database) as connection:
        cursor = connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'"
            " AND application_name = 'asyncproc-queue'"
        )
        return cursor.rowcount > 0
