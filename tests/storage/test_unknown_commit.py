import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from asyncproc.core.decision import Writes
from asyncproc.core.states import State
from asyncproc.errors import StorageUnavailable
from asyncproc.storage.batch import COPY_FROM, Batch, build
from asyncproc.storage.connection import Connection
from asyncproc.storage.cycle import Committed, Storage
from chaos.proxy import Cut, CutProxy
from tests.storage.table import ERROR, NOW, PAGE_BYTES, a_task, claim, done, live, query, until, waits_for_a_lock, write

SIZES = pytest.mark.parametrize("size", [3, COPY_FROM])


async def a_cycle(storage: Storage, size: int) -> Batch:
    """A batch of everything, on tasks that are in the table."""
    first, second, third, dead = [a_task(State.RUNNING) for _ in range(4)]
    waiting = a_task()
    await write(storage, inserts=[first, second, third, dead, waiting])
    await write(storage, failed=[(dead.id, 1, "Boom", ERROR)])
    writes = Writes(
        succeeded=[(first.id, 1, b"1")],
        retried=[(second.id, 1, NOW + 60, 0, "Boom", ERROR)],
        requeued=[(third.id, 1, 0)],
        revived=[(dead.id, NOW, 1.0)],
        inserts=[a_task(State.RUNNING), *(a_task() for _ in range(size - 1))],
        claims=[claim(waiting), claim(third, lease=2)],
    )
    return build(writes, NOW)


async def expected(storage: Storage, database: str, size: int) -> list[tuple[Any, ...]]:
    """What the tables hold after a cycle that nothing disturbed; ids differ from run to run, the rest does not."""
    assert await storage.commit(await a_cycle(storage, size), [], False) == Committed()
    content = shape(database)
    query(database, "TRUNCATE asyncproc.task_live, asyncproc.task_done")
    return content


def shape(database: str) -> list[tuple[Any, ...]]:
    rows = [*live(database).values(), *done(database).values()]
    return sorted(
        (row["state"], row["lease"], row["attempt"], row["losses"], str(row["worker"]), len(row["errors"]))
        for row in rows
    )


@SIZES
async def test_a_commit_whose_answer_is_lost_is_replayed_to_the_same_rows(
    storage: Storage, database: str, bystander: Connection, standby: Callable[[str], None], size: int
) -> None:
    undisturbed = await expected(storage, database, size)
    batch = await a_cycle(storage, size)
    standby("nobody")

    committing = asyncio.create_task(storage.commit(batch, [], False))
    await until(lambda: _terminated(bystander, "wait_event = 'SyncRep'"))
    with pytest.raises(StorageUnavailable):
        await committing
    assert shape(database) == undisturbed

    standby("")
    assert await storage.commit(batch, [], True) == Committed()
    assert shape(database) == undisturbed


@SIZES
async def test_a_commit_that_was_cut_off_before_is_written_by_its_replay(
    storage: Storage, database: str, bystander: Connection, size: int
) -> None:
    undisturbed = await expected(storage, database, size)
    batch = await a_cycle(storage, size)
    before = live(database), done(database)
    async with bystander.transaction():
        await bystander.execute("SELECT 1 FROM asyncproc.task_live WHERE state = 'queued' FOR UPDATE")
        committing = asyncio.create_task(storage.commit(batch, [], False))
        await until(lambda: waits_for_a_lock(bystander, 1))
        await until(lambda: _terminated(bystander, "wait_event_type = 'Lock'"))
        with pytest.raises(StorageUnavailable):
            await committing
    assert (live(database), done(database)) == before

    assert await storage.commit(batch, [], True) == Committed()
    assert shape(database) == undisturbed


@SIZES
async def test_wherever_the_connection_breaks_nothing_is_lost_and_nothing_doubled(
    storage: Storage, database: str, bystander: Connection, size: int
) -> None:
    undisturbed = await expected(storage, database, size)
    broken = 0
    for round_number in range(25):
        batch = await a_cycle(storage, size)

        async def cut_off(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await _terminated(bystander, "application_name = 'asyncproc-queue'")

        cutting = asyncio.create_task(cut_off(round_number))
        replay = False
        while True:
            try:
                committed = await storage.commit(batch, [], replay)
                break
            except StorageUnavailable:
                broken, replay = broken + 1, True
        await cutting
        await storage.close()

        assert committed == Committed()
        assert shape(database) == undisturbed
        query(database, "TRUNCATE asyncproc.task_live, asyncproc.task_done")
    assert broken > 5


@SIZES
async def test_a_commit_that_is_never_answered_is_given_up_and_replayed(database: str, size: int) -> None:
    folder = str(conninfo_to_dict(database)["host"])
    proxy = CutProxy(Path(folder) / ".s.PGSQL.5432")
    port = proxy.start()
    through = make_conninfo(database, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
    storage = Storage(through, PAGE_BYTES, answer_s=0.5)
    await storage.take_over()
    undisturbed = await expected(storage, database, size)
    batch = await a_cycle(storage, size)
    proxy.cut_next(Cut.HOLE, hole_s=3_600)

    with pytest.raises(StorageUnavailable):
        await storage.commit(batch, [], False)
    assert await storage.commit(batch, [], True) == Committed()

    assert shape(database) == undisturbed
    await storage.close()
    proxy.stop()


async def _terminated(connection: Connection, which: str) -> bool:
    """End the writer's backend where it is in this state; True if it was."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    text = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND {which}"
    cursor = await connection.execute(text.encode())
    return cursor.rowcount > 0
