"""Counts, groups and places that answer in time."""

from collections.abc import AsyncIterator

import pytest

from asyncproc.core.asked import Action
from asyncproc.core.record import TaskFilter
from asyncproc.core.states import State
from asyncproc.core.task import Task
from asyncproc.storage import survey
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from tests.storage.table import ERROR, NOW, a_task, query, write


@pytest.fixture
async def inspector(database: str) -> AsyncIterator[Inspector]:
    inspector = Inspector(database, 2)
    await inspector.open()
    yield inspector
    await inspector.close()


async def fail(storage: Storage, *errors: str) -> list[Task]:
    tasks = [a_task(State.RUNNING) for _ in errors]
    await write(storage, inserts=tasks)
    await write(storage, failed=[(task.id, 1, error, ERROR) for task, error in zip(tasks, errors, strict=True)])
    return tasks


async def test_a_count_is_of_what_the_action_is_for(storage: Storage, inspector: Inspector) -> None:
    await write(storage, inserts=[a_task(queue="mail") for _ in range(3)] + [a_task(queue="post")])
    await fail(storage, "Boom", "Boom")

    assert await survey.count(inspector, Action.CANCEL, TaskFilter(queue="mail")) == survey.Count(3, estimated=False)
    assert await survey.count(inspector, Action.RETRY, TaskFilter(queue=("mail", "post"))) == survey.Count(2, False)
    assert await survey.count(inspector, Action.DELETE, TaskFilter(state=State.SUCCEEDED)) == survey.Count(0, False)


async def test_a_count_that_takes_too_long_is_an_estimate(
    storage: Storage, inspector: Inspector, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(storage, inserts=[a_task(queue="mail" if n % 2 else "post") for n in range(2_000)])
    query(database, "ANALYZE asyncproc.task_live")
    monkeypatch.setattr(survey, "IN_TIME_S", 0.01)

    counted = await survey._counted(inspector, _SLOW_COUNT, {})

    assert counted.estimated
    assert 1_500 < counted.number < 2_500


_SLOW_COUNT = "SELECT count(*) FROM asyncproc.task_live t WHERE pg_sleep(0.001) IS NOT NULL"


async def test_whether_there_is_any(storage: Storage, inspector: Inspector) -> None:
    await write(storage, inserts=[a_task(queue="mail")])
    assert await survey.is_any(inspector, Action.MOVE, TaskFilter(queue="mail"))
    assert await survey.is_any(inspector, Action.DELETE, TaskFilter(queue="mail")) is False
    assert await survey.is_known(inspector, TaskFilter(queue="mail"))
    assert await survey.is_known(inspector, TaskFilter(queue="post")) is False
    assert await survey.queues(inspector) == ["mail"]


async def test_what_is_ahead_is_what_has_a_better_rank_in_the_queue(storage: Storage, inspector: Inspector) -> None:
    tasks = [a_task(rank=NOW + n, type="ab"[n % 2]) for n in range(10)]
    others = [a_task(queue="other", rank=NOW - 1), a_task(State.SCHEDULED)]
    await write(storage, inserts=tasks + others)

    assert await survey.ahead(inspector, "mail", NOW + 5, tasks[5].id) == {"a": 3, "b": 2}
    assert await survey.ahead(inspector, "mail", NOW, tasks[0].id) == {}


async def test_failed_tasks_are_grouped_by_what_went_wrong(
    storage: Storage, inspector: Inspector, database: str
) -> None:
    tasks = await fail(storage, "Boom: row 1", "Bang", "Boom: row 2", "Boom: row 17")
    query(database, "UPDATE asyncproc.task_done SET fingerprint = NULL WHERE error = 'Boom: row 2'")

    first, second = await survey.dead_groups(inspector, TaskFilter(), 10)

    assert (first.type, first.count, first.error, first.example) == ("send", 3, "Boom: row 17", tasks[3].id)
    assert (first.first_at, first.last_at) == (NOW, NOW)
    assert (second.count, second.error, second.example) == (1, "Bang", tasks[1].id)
    assert await survey.dead_groups(inspector, TaskFilter(fingerprint=second.fingerprint), 10) == [second]
    assert await survey.dead_groups(inspector, TaskFilter(queue="other"), 10) == []
    assert await survey.dead_groups(inspector, TaskFilter(), 1) == [first]
