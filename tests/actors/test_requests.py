"""Tasks enqueued inside the transactions of others: there once these are committed, whatever becomes of an actor."""

import asyncio
import json
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest

from asyncproc import enqueue
from asyncproc.changes import Put
from asyncproc.core.shape import shape_text
from asyncproc.core.states import State
from asyncproc.rules import Stored, TypeRuleSettings
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System
from tests.eventually import eventually
from tests.storage.table import query


def there(system: System, made: str) -> Any:
    """The task, where there is one."""
    return next(iter(system.tasks(id=UUID(made).bytes)), None)


def test_a_task_is_made_after_the_commit_with_all_that_rest_would_give_it(
    deploy: Deploy, ledger: Ledger, database: str
) -> None:
    system = deploy(queue={"workerPoolSize": 1}, types={"Note": {"timeout": "7s"}})
    system.steer(Put("type", "Note", json.dumps({"maxTaskRetry": 5}).encode(), "merge"))
    system.registry.obey(Stored(types={"Note": TypeRuleSettings.model_validate({"maxTaskRetry": 5})}))
    payload = {"ledger": ledger.path, "n": 1}
    asks = {"num_gpus": 0.5}
    with psycopg.connect(database) as caller:
        enqueue(caller, "Note", payload)
        caller.rollback()
        plain = enqueue(caller, "Note", payload)
        full = enqueue(
            caller, "Note", payload, queue="q", priority=3, delay=3600, timeout=2, back_off=1, created_by="me",
            affinity_key="a", resources=asks, depends_on=[plain, plain],
        )  # fmt: skip
        keyed = enqueue(caller, "Keyed", {"customer": {"name": "ada"}})
        # It waits for one that waits for an hour.
        child = enqueue(caller, "Note", payload, depends_on=[full], on_parent_failure="skip")
        caller.commit()
    # What the worker finds wrong fails that task alone.
    ((invalid,),) = query(database, "SELECT asyncproc.enqueue('Note', '{\"n\": \"x\"}', back_off => '0s')::text")

    ended = system.ended(UUID(eventually(lambda: there(system, plain)) and plain).bytes)
    (rest,) = system.enqueue("Note", payload)
    alike = ("type", "queue", "priority", "max_attempts", "backoff_s", "timeout_s", "soft_timeout_s", "origins")
    other = system.ended(rest)
    assert {name: getattr(ended, name) for name in alike} == {name: getattr(other, name) for name in alike}
    assert (ended.state, ended.max_attempts, ended.timeout_s) == (State.SUCCEEDED, 6, 7.0)

    task = there(system, full)
    assert (task.state, task.queue, task.priority, task.timeout_s, task.backoff_s, task.created_by) == (
        State.SCHEDULED, "q", 3, 2.0, 1.0, "me"
    )  # fmt: skip
    assert (task.affinity_key, task.resources, task.depends_on) == ("a", shape_text(asks), (UUID(plain).bytes,))
    assert task.ready_at == pytest.approx(task.created_at + 3600, abs=60)
    assert there(system, child).state is State.BLOCKED
    # What makes a key is code, and only the callers have that.
    assert (there(system, keyed).concurrency_key, there(system, keyed).fairness_key) == ("", "shared")

    failed = system.ended(UUID(invalid).bytes)
    assert failed.state is State.FAILED
    assert "ValidationError" in str(failed.error)
    assert ledger.runs() == {1: 2}
    assert query(database, "SELECT count(*) FROM asyncproc.task_request") == [(0,)]


def test_without_a_notification_it_takes_a_second(deploy: Deploy, ledger: Ledger, database: str) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    for n, notify in enumerate(("on", "off")):
        with psycopg.connect(database) as caller:
            caller.execute(f"SET asyncproc.notify = {notify}".encode())
            made = enqueue(caller, "Note", {"ledger": ledger.path, "n": n})
            ((committed,),) = caller.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
        record = system.ended(UUID(eventually(partial(there, system, made)) and made).bytes)
        assert record.created_at - committed < 1.5


def test_requests_outlive_the_queue_actor_and_become_tasks_once(deploy: Deploy, ledger: Ledger, database: str) -> None:
    system = deploy()
    rounds, each = 3, 400

    async def call(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(database) as caller:
            for n in range(number * each, (number + 1) * each):
                await caller.execute(
                    "SELECT asyncproc.enqueue('Note', json_build_object('ledger', %s::text, 'n', %s::int))",
                    [ledger.path, n],
                )
                if n % 7 == 0:
                    await caller.commit()

    for number in range(rounds):
        if number:
            system.kill_queue()
        asyncio.run(call(number))
        eventually(partial(ledger.has_more_than, number * each))

    eventually(lambda: system.states() == {State.SUCCEEDED: rounds * each})
    assert ledger.runs() == dict.fromkeys(range(rounds * each), 1)
    assert query(database, "SELECT count(*) FROM asyncproc.task_request") == [(0,)]
    assert system.health().epoch == rounds


def test_a_type_that_is_gone_since_waits_for_who_knows_it_and_hinders_nobody(
    deploy: Deploy, ledger: Ledger, database: str
) -> None:
    system = deploy(queue={"workerPoolSize": 1, "maxTaskRetry": 0})
    query(database, "INSERT INTO asyncproc.task_type VALUES ('Gone', 'default', 1000)")

    with psycopg.connect(database) as caller:
        gone = enqueue(caller, "Gone")
        note = enqueue(caller, "Note", {"ledger": ledger.path, "n": 1})

    eventually(lambda: there(system, note))
    assert system.ended(UUID(note).bytes).state is State.SUCCEEDED
    assert there(system, gone).state is State.QUEUED
