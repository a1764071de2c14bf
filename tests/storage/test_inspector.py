import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncproc.core.record import TaskFilter
from asyncproc.core.states import State
from asyncproc.core.task import Task
from asyncproc.errors import StorageUnavailable
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from tests.storage.table import ERROR, NOW, a_task, write


@pytest.fixture
async def inspector(database: str) -> AsyncIterator[Inspector]:
    inspector = Inspector(database, 2)
    await inspector.open()
    yield inspector
    await inspector.close()


async def one_of_each(storage: Storage) -> list[Task]:
    """Live and finished tasks; neighbours differ in every field that a filter knows."""
    states = [State.QUEUED, State.SCHEDULED, State.RUNNING, State.SUCCEEDED, State.FAILED, State.RETRYING]
    kinds = itertools.cycle([("send", "mail", 0, "me"), ("send", "bulk", 1, "you"), ("plan", "mail", 1, "me")])
    tasks = []
    for state, (type_, queue, priority, created_by) in zip(states * 5, kinds, strict=False):
        inserted = State.RUNNING if state in {State.SUCCEEDED, State.FAILED} else state
        task = a_task(inserted, type=type_, queue=queue, priority=priority, created_by=created_by)
        await write(storage, inserts=[task])
        if state is State.SUCCEEDED:
            await write(storage, succeeded=[(task.id, 1, b'{"n":  1}')])
        if state is State.FAILED:
            await write(storage, failed=[(task.id, 1, "Boom: it broke", ERROR)])
        task.state = state
        tasks.append(task)
    return tasks


async def test_a_live_task_is_shown_as_it_is(storage: Storage, inspector: Inspector) -> None:
    task = a_task(State.RUNNING, payload=b'{"a":  1e5000}')
    await write(storage, inserts=[task])

    record = await inspector.task(task.id)

    assert record is not None
    assert (record.id, record.type, record.queue, record.state) == (task.id, "send", "mail", State.RUNNING)
    assert (record.priority, record.attempt, record.max_attempts, record.backoff_s) == (2, 1, 3, 1.5)
    assert (record.created_at, record.ready_at, record.started_at, record.finished_at) == (NOW, NOW, NOW, None)
    assert (record.created_by, record.worker, record.error, record.result) == ("me", "w", None, None)
    assert (record.payload, record.errors) == (b'{"a":  1e5000}', b"[]")


async def test_a_finished_task_is_shown_with_its_result(storage: Storage, inspector: Inspector) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    await write(storage, succeeded=[(task.id, 1, b'{"sent":  [1]}')])

    record = await inspector.task(task.id)

    assert record is not None
    assert (record.state, record.result, record.finished_at) == (State.SUCCEEDED, b'{"sent":  [1]}', NOW)


async def test_an_unknown_task_is_none(inspector: Inspector) -> None:
    assert await inspector.task(a_task().id) is None
    assert await inspector.finished_task(a_task().id) is None


FILTERS: list[dict[str, Any]] = [
    {},
    *({"state": state} for state in State),
    {"type": "send"},
    {"type": "unheard of"},
    {"queue": "bulk"},
    {"priority": 0},
    {"priority": 1},
    {"created_by": "me"},
    {"created_by": "m\x00e"},
    {"state": State.QUEUED, "type": "plan", "queue": "mail", "priority": 1, "created_by": "me"},
]


async def test_a_list_is_what_passes_its_filter_newest_first_page_by_page(
    storage: Storage, inspector: Inspector
) -> None:
    tasks = await one_of_each(storage)
    for asked in FILTERS:
        narrowed = TaskFilter(**asked)
        expected = [task.id for task in reversed(tasks) if _passes(task, asked)]

        found, before = [], None
        while records := await inspector.tasks(narrowed, 4, before):
            assert len(records) <= 4
            found += [record.id for record in records]
            before = records[-1].id

        assert found == expected, asked


async def test_a_finished_task_comes_back_as_the_core_takes_it(storage: Storage, inspector: Inspector) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    assert await inspector.finished_task(task.id) is None
    await write(storage, failed=[(task.id, 1, "Boom", ERROR)])

    found = await inspector.finished_task(task.id)

    assert found is not None
    assert (found.id, found.state, found.lease, found.attempt) == (task.id, State.FAILED, 1, 1)
    assert (found.options, found.payload) == (task.options, task.payload)


async def test_existing_names_what_is_live_and_what_is_done(storage: Storage, inspector: Inspector) -> None:
    tasks = await one_of_each(storage)

    assert await inspector.existing([*(task.id for task in tasks), a_task().id]) == {task.id for task in tasks}


async def test_figures_count_every_task_once(storage: Storage, inspector: Inspector) -> None:
    tasks = await one_of_each(storage)

    figures = await inspector.figures()

    counts = {(state, queue, type_): number for state, queue, type_, number, _, _ in figures}
    assert len(counts) == len(figures)
    assert sum(counts.values()) == len(tasks)
    assert counts["succeeded", "mail", "send"] == len(
        [task for task in tasks if _passes(task, {"state": State.SUCCEEDED, "queue": "mail", "type": "send"})]
    )
    for state, _, _, _, mean_s, oldest_s in figures:
        assert (mean_s == 0.0) == (state in {"succeeded", "failed"})
        assert (oldest_s is not None) == (state == "queued")


async def test_the_inspector_cannot_write(inspector: Inspector) -> None:
    with pytest.raises(StorageUnavailable, match="read-only"):
        await inspector._read("DELETE FROM asyncproc.task_live", {})


def _passes(task: Task, asked: dict[str, Any]) -> bool:
    shown = {**task.options._asdict(), "state": task.state}
    return all(shown[name] == value for name, value in asked.items())


async def test_a_list_by_what_payloads_contain(storage: Storage, inspector: Inspector) -> None:
    payloads = (
        b'{"o": {"id": 7, "x": 1}}',
        rb'{"o": {"id": 7}, "t": "\u0000"}',
        b'{"o": {"id": 7}}',
        b'{"o": {"id": 8}}',
    )
    tasks = [a_task(State.RUNNING, payload=payload) for payload in payloads]
    await write(storage, inserts=tasks)
    await write(storage, succeeded=[(tasks[2].id, 1, b"1")])

    async def listed(part: str) -> list[int]:
        ids = [task.id for task in tasks]
        return [ids.index(record.id) for record in await inspector.tasks(TaskFilter(payload=part), 10, None)]

    assert await listed('{"o": {"id": 7}}') == [2, 0]
    assert await listed('{"o": {"x": 1}}') == [0]
    assert await listed('{"o": 7}') == []
