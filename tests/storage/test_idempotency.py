"""Idempotency keys: written with the tasks of their request or not at all, kept for their time, and then deleted."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from asyncproc.clock import wall_now
from asyncproc.core.decision import Writes
from asyncproc.core.states import State
from asyncproc.core.task import KeyUsed, Task
from asyncproc.errors import EpochLost, StorageUnavailable
from asyncproc.storage import retention
from asyncproc.storage.batch import COPY_FROM, build
from asyncproc.storage.connection import Connection
from asyncproc.storage.cycle import Committed, Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.retention import Retention
from tests.storage.table import NOW, a_task, live, query, until, waits_for_a_lock, write, write_again

DAY_S: Final = 86_400.0
HASH: Final = b"h" * 32
OTHER_HASH: Final = b"i" * 32

SIZES = pytest.mark.parametrize("size", [3, COPY_FROM])


def used(tasks: list[Task], key: str = "k", answer: bytes = b'{"tasks":1}', kept_s: float = DAY_S) -> KeyUsed:
    return (key, HASH, answer, kept_s, [task.id for task in tasks])


def keys(database: str) -> dict[str, Any]:
    rows = query(
        database, "SELECT key, body_hash, answer, extract(epoch FROM expires_at) FROM asyncproc.idempotency_key"
    )
    return {row[0]: row[1:] for row in rows}


@pytest.fixture
async def inspector(database: str) -> AsyncIterator[Inspector]:
    inspector = Inspector(database, 1)
    await inspector.open()
    yield inspector
    await inspector.close()


@SIZES
async def test_a_key_is_written_with_its_tasks(
    storage: Storage, inspector: Inspector, database: str, size: int
) -> None:
    tasks = [a_task() for _ in range(size)]

    assert await write(storage, inserts=tasks, keys=[used(tasks)]) == Committed()

    assert set(live(database)) == {task.id for task in tasks}
    assert await inspector.answers([("k", HASH), ("other", HASH)], NOW) == {"k": b'{"tasks":1}'}
    assert await inspector.answers([("k", OTHER_HASH)], NOW) == {"k": None}


async def test_a_key_is_over_after_its_time_and_can_be_used_anew(storage: Storage, inspector: Inspector) -> None:
    first, second = [a_task()], [a_task()]
    await write(storage, inserts=first, keys=[used(first)])
    later = NOW + DAY_S

    assert await inspector.answers([("k", HASH)], later - 0.001) != {}
    assert await inspector.answers([("k", HASH)], later) == {}

    again = build(Writes(inserts=second, keys=[used(second, answer=b'"new"')]), later)
    assert await storage.commit(again, [], False) == Committed()
    assert await inspector.answers([("k", HASH)], later) == {"k": b'"new"'}


@SIZES
async def test_a_replay_writes_neither_tasks_nor_keys_a_second_time(storage: Storage, database: str, size: int) -> None:
    tasks = [a_task(State.RUNNING) for _ in range(size)]
    writes = {"inserts": tasks, "keys": [used(tasks)]}
    await write(storage, **writes)
    before = keys(database)
    await write(storage, succeeded=[(task.id, 1, b"1") for task in tasks])

    await write_again(storage, **writes)

    assert live(database) == {}
    assert keys(database) == before


async def test_a_key_that_is_in_use_keeps_its_answer(storage: Storage, database: str) -> None:
    tasks = [a_task()]
    await write(storage, inserts=tasks, keys=[used(tasks)])
    before = keys(database)

    await write(storage, inserts=[], keys=[used(tasks, answer=b'"another"')])

    assert keys(database) == before


@SIZES
async def test_of_a_commit_that_is_cut_off_neither_is_there(
    storage: Storage, database: str, bystander: Connection, size: int
) -> None:
    """The key stands in the first part of the transaction, the tasks in a later one."""
    tasks = [a_task() for _ in range(size)]
    async with bystander.transaction():
        await bystander.execute("LOCK TABLE asyncproc.task_live IN SHARE MODE")
        committing = asyncio.create_task(write(storage, inserts=tasks, keys=[used(tasks)]))
        await until(lambda: waits_for_a_lock(bystander, 1))
        query(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with pytest.raises(StorageUnavailable):
            await committing

    assert (live(database), keys(database)) == ({}, {})


async def test_a_reign_that_is_over_records_no_key(storage: Storage, successor: Storage, database: str) -> None:
    await successor.take_over()
    tasks = [a_task()]

    with pytest.raises(EpochLost):
        await write(storage, inserts=tasks, keys=[used(tasks)])

    assert keys(database) == {}


async def test_where_one_task_cannot_be_kept_all_of_its_key_are_refused_and_its_neighbours_are_not(
    storage: Storage, database: str
) -> None:
    keyed, fine, others = [a_task() for _ in range(3)], [a_task() for _ in range(2)], [a_task() for _ in range(2)]
    keyed[1].payload = b"not JSON"

    committed = await write(storage, inserts=[*keyed, *fine, *others], keys=[used(keyed, "bad"), used(fine, "good")])

    assert set(committed.rejected) == {task.id for task in keyed}
    assert set(live(database)) == {task.id for task in [*fine, *others]}
    assert set(keys(database)) == {"good"}


async def test_keys_that_are_over_are_deleted_a_few_at_a_time_and_others_stay(
    storage: Storage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEYS_AT_ONCE", 3)
    task = a_task()
    over = [used([task], f"over-{n}", kept_s=-1.0) for n in range(10)]
    await storage.commit(build(Writes(keys=[*over, used([task], "kept")]), wall_now()), [], False)

    swept = await Retention(database, {}).sweep(storage.epoch)

    assert swept.keys == 10
    assert set(keys(database)) == {"kept"}


async def test_a_sweep_waits_for_no_cycle_that_uses_a_key_anew(
    storage: Storage, database: str, bystander: Connection
) -> None:
    task = a_task()
    await write(storage, keys=[used([task], name, kept_s=-DAY_S) for name in ("a", "b")])
    async with bystander.transaction():
        await bystander.execute("UPDATE asyncproc.idempotency_key SET answer = '1' WHERE key = 'a'")

        swept = await Retention(database, {}).sweep(storage.epoch)

        assert swept.keys == 1
    assert set(keys(database)) == {"a"}
