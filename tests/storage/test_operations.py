"""Operations as they are kept, and the pages in which they find what they are for."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from asyncproc.clock import TaskIds
from asyncproc.core.asked import Action, Change
from asyncproc.core.record import OperationState, Order, TaskFilter
from asyncproc.core.states import State
from asyncproc.core.task import Task
from asyncproc.errors import EpochLost
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.operations import LARGEST_BYTES, Found, Operations, Running, filter_of, filter_text, latest, one
from tests.storage.table import ERROR, NOW, a_task, done, live, query, write

_IDS = TaskIds()
LATER = NOW + 3600


@pytest.fixture
async def operations(storage: Storage, database: str) -> AsyncIterator[Operations]:
    operations = Operations(database)
    await operations.open(storage.epoch)
    yield operations
    await operations.close()


@pytest.fixture
async def inspector(database: str) -> AsyncIterator[Inspector]:
    inspector = Inspector(database, 2)
    await inspector.open()
    yield inspector
    await inspector.close()


def an_order(action: Action, change: Change | None = None, **narrowed: Any) -> Order:
    return Order(_IDS.make(), action, TaskFilter(**narrowed), change or Change())


async def begun(operations: Operations, order: Order) -> Running:
    await operations.add(order, LATER)
    (operation,) = await operations.running()
    return operation


async def test_an_operation_finds_what_payloads_contain(storage: Storage, operations: Operations) -> None:
    tasks = [a_task(payload=b'{"order": {"id": %d, "of": "ada"}}' % (n % 2)) for n in range(6)]
    await write(storage, inserts=tasks)
    part = '{"order":{"id":1}}'

    operation = await begun(operations, an_order(Action.CANCEL, payload=part))

    assert operation.order.narrowed == TaskFilter(payload=part)
    assert [task.id for page in await all_found(operations, operation, 4, 2) for task in page] == [
        task.id for task in tasks[1::2]
    ]


async def all_found(operations: Operations, operation: Running, look_at: int, most: int) -> list[list[Task]]:
    pages: list[list[Task]] = []
    while True:
        found = await operations.found(operation, look_at, most)
        pages.append(found.tasks)
        assert await operations.advance(operation, found, 0)
        if found.is_last:
            return pages
        (operation,) = await operations.running()


async def failures(storage: Storage, number: int, error: str = "Boom: it broke") -> list[Task]:
    tasks = [a_task(State.RUNNING) for _ in range(number)]
    await write(storage, inserts=tasks)
    await write(storage, failed=[(task.id, 1, error, ERROR) for task in tasks])
    return tasks


@pytest.mark.parametrize(
    "narrowed",
    [
        TaskFilter(),
        TaskFilter(state=State.QUEUED, type="send", queue=("a", "b"), priority=(1, -1), created_by="me"),
        TaskFilter(state=(State.QUEUED, State.RUNNING), created_after=1.5, created_before=2.5, fingerprint="f"),
        TaskFilter(id=(bytes(16),), concurrency_key="k", fairness_key=("t",)),
    ],
)
def test_a_filter_is_kept_as_it_is(narrowed: TaskFilter) -> None:
    assert filter_of(filter_text(narrowed)) == narrowed


@pytest.mark.parametrize(("look_at", "most"), [(1, 5), (3, 2), (100, 3), (100, 100)])
async def test_every_task_that_matches_is_found_once(
    storage: Storage, operations: Operations, look_at: int, most: int
) -> None:
    states = [State.QUEUED, State.SCHEDULED, State.RUNNING]
    tasks = [a_task(states[n % 3], queue="ab"[n % 2]) for n in range(20)]
    await write(storage, inserts=tasks)

    pages = await all_found(operations, await begun(operations, an_order(Action.CANCEL, queue="a")), look_at, most)

    assert [task.id for page in pages for task in page] == [task.id for task in tasks if task.queue == "a"]
    assert all(len(page) <= most for page in pages)
    assert await operations.running() == []


async def test_what_came_after_it_was_asked_for_is_not_meant(storage: Storage, operations: Operations) -> None:
    tasks = [a_task(created_at=LATER - 1), a_task(created_at=LATER + 1)]
    await write(storage, inserts=tasks)
    operation = await begun(operations, an_order(Action.CANCEL))
    await write(storage, inserts=[a_task()])

    assert [[task.id for task in page] for page in await all_found(operations, operation, 10, 10)] == [[tasks[0].id]]


async def test_a_large_payload_is_left_to_the_lease(storage: Storage, operations: Operations) -> None:
    small, large = a_task(), a_task(payload=b'"' + b"x" * (LARGEST_BYTES + 1) + b'"')
    await write(storage, inserts=[small, large])

    found = await operations.found(await begun(operations, an_order(Action.CHANGE_PRIORITY)), 10, 10)

    assert [(task.payload, task.left_out > 0) for task in found.tasks] == [(small.payload, False), (b"", True)]


async def test_only_failed_tasks_are_found_to_be_retried(storage: Storage, operations: Operations) -> None:
    failed = await failures(storage, 3)
    succeeded, waiting = a_task(State.RUNNING), a_task()
    await write(storage, inserts=[succeeded, waiting])
    await write(storage, succeeded=[(succeeded.id, 1, b"1")])

    (page,) = await all_found(operations, await begun(operations, an_order(Action.RETRY)), 10, 10)

    assert [(task.id, task.state, task.payload) for task in page] == [
        (task.id, State.FAILED, task.payload) for task in failed
    ]


async def test_what_is_found_and_finished_is_deleted(storage: Storage, operations: Operations, database: str) -> None:
    failed = await failures(storage, 3)
    waiting = a_task()
    await write(storage, inserts=[waiting])
    operation = await begun(operations, an_order(Action.DELETE, state=State.FAILED))
    found = await operations.found(operation, 10, 2)

    assert await operations.delete(operation, found.tasks) == 2
    assert await operations.delete(operation, found.tasks) == 0

    assert list(done(database)) == [failed[2].id]
    assert list(live(database)) == [waiting.id]


async def test_tasks_with_one_fingerprint_are_those_that_fail_alike(
    storage: Storage, operations: Operations, database: str
) -> None:
    alike = await failures(storage, 2, "Boom: row 17 of 019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7")
    alike += await failures(storage, 1, "Boom: row 4711 of 019a5b7e-aaaa-7c11-9d3e-3f0a4be2c1d7")
    other = await failures(storage, 1, "Bang: row 17 of 019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7")
    (fingerprint,) = {done(database)[task.id]["fingerprint"] for task in alike}
    assert done(database)[other[0].id]["fingerprint"] != fingerprint

    (page,) = await all_found(
        operations, await begun(operations, an_order(Action.RETRY, fingerprint=fingerprint)), 9, 9
    )
    assert {task.id for task in page} == {task.id for task in alike}


async def test_what_failed_before_there_were_fingerprints_is_found_by_them(
    storage: Storage, operations: Operations, database: str
) -> None:
    (old,) = await failures(storage, 1)
    fingerprint = done(database)[old.id]["fingerprint"]
    query(database, "UPDATE asyncproc.task_done SET fingerprint = NULL")

    (page,) = await all_found(
        operations, await begun(operations, an_order(Action.RETRY, fingerprint=fingerprint)), 9, 9
    )
    assert [task.id for task in page] == [old.id]


async def test_progress_is_kept_and_shown(operations: Operations, inspector: Inspector, storage: Storage) -> None:
    await write(storage, inserts=[a_task() for _ in range(3)])
    order = an_order(Action.POSTPONE, Change(ready_at=LATER), queue="mail")
    operation = await begun(operations, order)
    found = await operations.found(operation, 2, 2)
    await operations.advance(operation, found, 1)

    progress = await one(inspector, order.id)
    assert progress is not None
    assert (progress.order, progress.state, progress.finished_at) == (order, OperationState.RUNNING, None)
    assert (progress.matched, progress.done, progress.skipped) == (2, 1, 1)
    assert await latest(inspector) == [progress]

    (operation,) = await operations.running()
    await operations.advance(operation, await operations.found(operation, 2, 2), 1)
    progress = await one(inspector, order.id)
    assert progress is not None
    assert (progress.state, progress.matched, progress.finished_at is None) == (OperationState.DONE, 3, False)


async def test_the_same_order_again_is_the_same_operation(operations: Operations) -> None:
    order = an_order(Action.CANCEL, queue="mail")
    await operations.add(order, NOW)
    await operations.add(order, LATER)
    assert [(running.order, running.created_at) for running in await operations.running()] == [(order, NOW)]


async def test_a_cancelled_operation_goes_no_further(operations: Operations, inspector: Inspector) -> None:
    operation = await begun(operations, an_order(Action.CANCEL))
    assert await operations.cancel(operation.order.id)
    assert not await operations.cancel(operation.order.id)
    assert not await operations.advance(operation, Found([], operation.upto, is_last=True), 0)
    progress = await one(inspector, operation.order.id)
    assert progress is not None
    assert progress.state is OperationState.CANCELLED


async def test_what_changed_meanwhile_is_read_again_if_it_still_matches(
    storage: Storage, operations: Operations, database: str
) -> None:
    tasks = [a_task(queue="mail") for _ in range(3)]
    await write(storage, inserts=tasks)
    operation = await begun(operations, an_order(Action.CANCEL, queue="mail"))
    query(database, "UPDATE asyncproc.task_live SET queue = 'post' WHERE id = %s", UUID(bytes=tasks[0].id))

    again = await operations.again(operation, [tasks[0].id, tasks[1].id])

    assert [task.id for task in again] == [tasks[1].id]


async def test_a_reign_that_is_over_writes_nothing(
    operations: Operations, storage: Storage, successor: Storage, database: str
) -> None:
    failed = await failures(storage, 1)
    operation = await begun(operations, an_order(Action.DELETE))
    await successor.take_over()

    for attempt in (
        operations.add(an_order(Action.CANCEL), NOW),
        operations.delete(operation, failed),
        operations.advance(operation, Found([], operation.upto, is_last=True), 0),
        operations.cancel(operation.order.id),
    ):
        with pytest.raises(EpochLost):
            await attempt
    assert list(done(database)) == [failed[0].id]
