import asyncio
from uuid import UUID

import pytest
from psycopg.conninfo import conninfo_to_dict

from asyncproc.core.task import TaskId
from asyncproc.errors import EpochLost, StorageUnavailable
from asyncproc.storage.connection import Connection, open_writer
from asyncproc.storage.cycle import Storage
from asyncproc.storage.statements import moves, reign
from tests.storage.table import a_task, claim, live, query, until, waits_for_a_lock, write, write_again


async def test_every_reign_has_a_higher_epoch(storage: Storage, successor: Storage) -> None:
    assert storage.epoch == 1
    await successor.take_over()
    assert successor.epoch == 2
    await storage.take_over()
    assert storage.epoch == 3


async def test_a_takeover_tells_the_time_of_the_database(storage: Storage, database: str) -> None:
    before, now, after = (
        query(database, "SELECT extract(epoch FROM clock_timestamp())::float8")[0][0],
        await storage.take_over(),
        query(database, "SELECT extract(epoch FROM clock_timestamp())::float8")[0][0],
    )

    assert before <= now <= after


async def test_an_idle_predecessor_writes_nothing_after_the_takeover(
    storage: Storage, successor: Storage, database: str
) -> None:
    task = a_task()
    await write(storage, inserts=[task])
    await successor.take_over()
    before = live(database)

    for attempt in (write, write_again):
        with pytest.raises(EpochLost):
            await attempt(storage, inserts=[a_task()], claims=[claim(task)])
    with pytest.raises(EpochLost):
        await write(storage, inserts=[a_task() for _ in range(300)])
    with pytest.raises(EpochLost):
        await storage.load({}, 60.0)

    assert live(database) == before


async def test_a_takeover_waits_for_the_open_transaction_and_sees_its_effect(
    storage: Storage, successor: Storage, bystander: Connection
) -> None:
    task = a_task()
    await write(storage, inserts=[task])
    async with bystander.transaction():
        await bystander.execute("SELECT 1 FROM asyncproc.task_live FOR UPDATE")
        committing = asyncio.create_task(write(storage, claims=[claim(task)]))
        await until(lambda: waits_for_a_lock(bystander, 1))
        taking_over = asyncio.create_task(successor.take_over())
        await until(lambda: waits_for_a_lock(bystander, 2))

    assert (await committing).refused == []
    await taking_over
    assert [running.id for running in (await successor.load({}, 60.0)).running] == [task.id]


async def test_a_takeover_ends_a_transaction_that_does_not_end(
    storage: Storage, successor: Storage, bystander: Connection, database: str
) -> None:
    task = a_task()
    await write(storage, inserts=[task])
    async with bystander.transaction():
        await bystander.execute("SELECT 1 FROM asyncproc.task_live FOR UPDATE")
        committing = asyncio.create_task(write(storage, claims=[claim(task)]))
        await until(lambda: waits_for_a_lock(bystander, 1))
        await successor.take_over()

    with pytest.raises(StorageUnavailable):
        await committing
    with pytest.raises(EpochLost):
        await write_again(storage, claims=[claim(task)])
    assert live(database)[task.id]["state"] == "queued"


async def test_a_takeover_ends_predecessors_that_froze(storage: Storage, successor: Storage, database: str) -> None:
    # Reconnected ones: their backends are others than at their takeover.
    between_statements, in_a_copy = [await open_writer(database) for _ in range(2)]
    for frozen in (between_statements, in_a_copy):
        await frozen.execute("BEGIN")
        await frozen.execute(reign.LOCK_SHARED, [reign.LOCK_KEY])
        await frozen.execute(reign.PROVE_EPOCH, [storage.epoch])
    in_a_copy.pgconn.send_query(moves.COPY_IN.encode())
    in_a_copy.pgconn.flush()

    await successor.take_over()

    assert successor.epoch == storage.epoch + 1
    await between_statements.close()
    await in_a_copy.close()


async def test_two_that_take_over_at_once_get_different_epochs(storage: Storage, successor: Storage) -> None:
    await asyncio.gather(storage.take_over(), successor.take_over())

    assert {storage.epoch, successor.epoch} == {2, 3}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_the_fence_holds_whatever_isolation_the_database_prefers(
    storage: Storage, successor: Storage, bystander: Connection, database: str, isolation: str
) -> None:
    name = conninfo_to_dict(database)["dbname"]
    query(database, f"ALTER DATABASE {name} SET default_transaction_isolation TO '{isolation}'")
    await storage.close()
    async with bystander.transaction():
        await bystander.execute(reign.LOCK_EXCLUSIVE, [reign.LOCK_KEY])
        committing = asyncio.create_task(write(storage, inserts=[a_task()]))
        await until(lambda: waits_for_a_lock(bystander, 1))
        await bystander.execute(reign.TAKE_EPOCH)

    with pytest.raises(EpochLost):
        await committing
    assert live(database) == {}


async def test_what_a_takeover_has_seen_never_changes_behind_its_back(storage: Storage, database: str) -> None:
    """Whatever the two do at once: acknowledged is visible to the successor, and nothing appears after it looked."""
    reigning = storage
    for round_number in range(40):
        successor = Storage(database, 1 << 20)
        acknowledged: list[TaskId] = []
        reign = asyncio.create_task(_write_until_the_end(reigning, acknowledged, round_number))
        for _ in range(round_number * 3):
            await asyncio.sleep(0)

        await successor.take_over()
        seen = await _all_ids(successor)
        await reign

        assert await _all_ids(successor) == seen
        assert seen >= set(acknowledged)
        await reigning.close()
        reigning = successor
    await reigning.close()


async def _write_until_the_end(storage: Storage, acknowledged: list[TaskId], round_number: int) -> None:
    size = 60 if round_number % 3 == 0 else 3
    while True:
        tasks = [a_task() for _ in range(size)]
        try:
            await write(storage, inserts=tasks)
        except (EpochLost, StorageUnavailable):
            return
        acknowledged += [task.id for task in tasks]


async def _all_ids(storage: Storage) -> set[TaskId]:
    connection = await open_writer(storage._conninfo)
    async with connection:
        rows = await (await connection.execute("SELECT id FROM asyncproc.task_live")).fetchall()
    return {row[0].bytes for row in rows if isinstance(row[0], UUID)}


async def test_the_clock_of_a_reign_is_not_late_by_what_the_takeover_took(
    successor: Storage, bystander: Connection
) -> None:
    async with bystander.transaction():
        await bystander.execute("SELECT pg_advisory_xact_lock(hashtextextended('asyncproc.make_partitions', 0))")
        taking_over = asyncio.create_task(successor.take_over())
        await until(lambda: waits_for_a_lock(bystander, 1))
        cursor = await bystander.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        row = await cursor.fetchone()

    assert row is not None
    assert await taking_over >= float(str(row[0]))
