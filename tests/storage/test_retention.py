"""What is over goes with its partition, whoever reads; what is to come is there ahead."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest

from asyncproc.clock import wall_now
from asyncproc.core.decision import Writes
from asyncproc.core.retention import Over
from asyncproc.core.states import FINAL, State
from asyncproc.core.task import TaskId
from asyncproc.errors import EpochLost
from asyncproc.storage import retention, thinning
from asyncproc.storage.batch import build
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.retention import DAYS_AHEAD, Retention, Swept, make_ahead
from asyncproc.storage.thinning import Thinning
from tests.storage.table import ERROR, NOW, a_task, done, query, write, write_again

DAY_S: Final = 86_400.0
FEBRUARY_27: Final = datetime(2031, 2, 27, 2, tzinfo=UTC).timestamp()
KEPT: Final = {State.SUCCEEDED: 7 * DAY_S, State.FAILED: 30 * DAY_S, State.CANCELLED: 7 * DAY_S}


async def ended(storage: Storage, state: State, days_ago: float, queue: str = "default") -> TaskId:
    """A task that was made and ended so long ago."""
    at = wall_now() - days_ago * DAY_S
    task = a_task(State.RUNNING, created_at=at, ready_at=at, queue=queue)
    task.id = int(at * 1000).to_bytes(6) + task.id[6:]
    await write(storage, inserts=[task])
    outcome: dict[str, Any] = (
        {"succeeded": [(task.id, 1, b"1")]} if state is State.SUCCEEDED else {"failed": [(task.id, 1, "Boom", ERROR)]}
    )
    await storage.commit(build(Writes(**outcome), at), [], False)
    return task.id


def partitions(database: str, state: State) -> set[str]:
    rows = query(
        database,
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass AND NOT inhdetachpending",
        f"asyncproc.task_done_{state}",
    )
    return {name.rpartition("_")[2] for (name,) in rows}


def tables(database: str) -> int:
    ((number,),) = query(database, "SELECT count(*) FROM pg_class WHERE relname ~ '^task_done_[a-z]+_[0-9]+$'")
    return int(number)


def days(first: date, number: int) -> set[str]:
    return {f"{first + timedelta(days=n):%Y%m%d}" for n in range(number)}


@pytest.fixture
def reader(database: str) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
    """Somebody in the midst of reading everything that has ended."""
    with psycopg.connect(database) as connection:
        connection.execute("SELECT count(*) FROM asyncproc.task_done")
        yield connection


async def test_each_state_is_kept_for_its_own_time_and_then_goes(storage: Storage, database: str) -> None:
    kept = [await ended(storage, state, days) for state, days in [(State.SUCCEEDED, 6.9), (State.FAILED, 29.9)]]
    for state, ago in [(State.SUCCEEDED, 8.1), (State.SUCCEEDED, 400), (State.FAILED, 31.1)]:
        await ended(storage, state, ago)
    before = tables(database)

    swept = await Retention(database, KEPT).sweep(storage.epoch)

    assert set(done(database)) == set(kept)
    assert (len(swept.dropped) >= 3, swept.left) == (True, {})
    assert tables(database) == before - len(swept.dropped)


async def test_what_is_kept_for_ever_stays(storage: Storage, database: str) -> None:
    old = await ended(storage, State.FAILED, 4000)

    await Retention(database, {State.SUCCEEDED: DAY_S}).sweep(storage.epoch)

    assert set(done(database)) == {old}


async def test_a_queue_may_keep_its_tasks_for_longer_or_less_long(
    storage: Storage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinning, "PAGES_AT_ONCE", 1)
    by_queue = {"short": {State.SUCCEEDED: 2 * DAY_S}, "long": {State.SUCCEEDED: 60 * DAY_S}, "same": {}}
    kept: list[TaskId] = []
    for queue, least, state in [
        ("short", 2, State.SUCCEEDED), ("default", 7, State.SUCCEEDED), ("long", 60, State.SUCCEEDED),
        ("same", 7, State.SUCCEEDED), ("short", 30, State.FAILED), ("long", 30, State.FAILED),
    ]:  # fmt: skip
        # Some are a page and more, and all are of the same two days.
        for ago in (1.0, 4.0, 9.0, 40.0, 70.0):
            ids = [await ended(storage, state, ago, queue) for _ in range(5)]
            kept += ids if ago <= least else []
    sweeper = Retention(database, KEPT, by_queue=lambda: by_queue)

    swept = await sweeper.sweep(storage.epoch)

    assert set(done(database)) == set(kept)
    assert swept.tasks == 5 * (3 + 2 + 2)
    assert await sweeper.sweep(storage.epoch) == Swept()
    by_queue["long"] = {State.SUCCEEDED: DAY_S}
    assert (await sweeper.sweep(storage.epoch)).tasks == 5 * 1
    gone = (await Retention(database, KEPT, by_queue=lambda: by_queue).sweep(storage.epoch)).tasks
    assert gone == 0, "a new reign looks again, and finds nothing"


async def test_what_was_broken_off_goes_on_where_it_was(storage: Storage, database: str) -> None:
    old = [await ended(storage, State.SUCCEEDED, 4, "short") for _ in range(3)]
    (name,) = {row[0] for row in query(database, "SELECT tableoid::regclass::text FROM asyncproc.task_done")}
    connection, over = storage._connection or pytest.fail("no connection"), Over(("short",), these=True)
    thin = Thinning()
    thin._next_page[name.rpartition(".")[2]] = (over, 1)
    assert await thin.thin(connection, name.rpartition(".")[2], over) == 0
    assert await thin.thin(connection, name.rpartition(".")[2], Over(("long",), these=False)) == len(old)


async def test_the_days_to_come_are_there_ahead(storage: Storage, database: str) -> None:
    await make_ahead(storage._connection or pytest.fail("no connection"), FEBRUARY_27, [])

    for state in FINAL:
        assert days(date(2031, 2, 27), DAYS_AHEAD) <= partitions(database, state)


async def test_a_state_that_is_kept_for_long_is_parted_by_month(storage: Storage, database: str) -> None:
    connection = storage._connection or pytest.fail("no connection")

    await make_ahead(connection, FEBRUARY_27, [State.FAILED])
    await make_ahead(connection, FEBRUARY_27 + DAY_S, [State.FAILED])
    await make_ahead(connection, FEBRUARY_27 + DAY_S, [])

    assert {name for name in partitions(database, State.FAILED) if name > "2031"} == {"203102", "203103"}
    assert len({name for name in partitions(database, State.SUCCEEDED) if name > "2031"}) == DAYS_AHEAD + 1


async def test_a_month_that_has_days_goes_on_with_days(storage: Storage, database: str) -> None:
    connection = storage._connection or pytest.fail("no connection")
    await make_ahead(connection, FEBRUARY_27 - 3 * DAY_S, [])

    await make_ahead(connection, FEBRUARY_27, [State.FAILED])

    assert {name for name in partitions(database, State.FAILED) if name > "20310227"} == {"20310228", "203103"}


async def test_a_month_is_dropped_when_its_last_day_is_over(storage: Storage, database: str) -> None:
    query(database, "SELECT asyncproc.make_partitions((now() - interval '75 days')::date, 1, '{failed}')")
    query(database, "SELECT asyncproc.make_partitions((now() - interval '40 days')::date, 1, '{failed}')")

    swept = await Retention(database, {State.FAILED: 40 * DAY_S}).sweep(storage.epoch)

    assert len(swept.dropped) == 1
    assert len([name for name in partitions(database, State.FAILED) if len(name) == 6]) == 1


async def test_a_second_sweep_changes_nothing(storage: Storage, database: str) -> None:
    await ended(storage, State.SUCCEEDED, 9)
    sweeper = Retention(database, {state: 3600.0 for state in FINAL})
    await sweeper.sweep(storage.epoch)
    before = tables(database)

    assert await sweeper.sweep(storage.epoch) == Swept()
    assert tables(database) == before


async def test_a_sweep_neither_waits_for_a_reader_for_long_nor_makes_the_cycle_wait(
    storage: Storage, database: str, reader: "psycopg.Connection[tuple[Any, ...]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_OPTIONS", "-c lock_timeout=1s -c statement_timeout=1s")
    # At noon: in the first hour of a day the partition before its own is made too, and would go first.
    old = await ended(storage, State.SUCCEEDED, 9 + wall_now() % DAY_S / DAY_S - 0.5)
    reader.rollback()
    reader.execute("SELECT count(*) FROM asyncproc.task_done")
    sweeper = Retention(database, KEPT)
    sweeping = asyncio.create_task(sweeper.sweep(storage.epoch))
    slowest = 0.0
    while not sweeping.done():
        since = asyncio.get_running_loop().time()
        await ended(storage, State.SUCCEEDED, 0)
        await write_again(storage, inserts=[a_task()])
        slowest = max(slowest, asyncio.get_running_loop().time() - since)

    swept = await sweeping
    assert swept.dropped == []
    assert {name.split("_")[2] for name in swept.left} == {"succeeded", "cancelled"}
    assert slowest < 0.5
    assert old not in done(database), "it is out of sight at once"

    reader.rollback()
    assert len((await sweeper.sweep(storage.epoch)).dropped) == 4
    assert await sweeper.sweep(storage.epoch) == Swept()


async def test_partitions_are_made_while_a_backup_reads_everything(
    storage: Storage, database: str, reader: "psycopg.Connection[tuple[Any, ...]]"
) -> None:
    query(database, "SET lock_timeout = '1s'; SELECT asyncproc.make_partitions('2031-02-27', 2, '{}')")

    for state in FINAL:
        assert days(date(2031, 2, 27), 2) <= partitions(database, state)


async def test_a_reign_that_is_over_drops_nothing(storage: Storage, successor: Storage, database: str) -> None:
    old = await ended(storage, State.SUCCEEDED, 9)
    await successor.take_over()

    with pytest.raises(EpochLost):
        await Retention(database, KEPT).sweep(storage.epoch)

    assert old in done(database)


async def test_of_two_sweeps_at_once_one_works(storage: Storage, database: str) -> None:
    await ended(storage, State.SUCCEEDED, 9)
    sweeper = Retention(database, {State.SUCCEEDED: 7 * DAY_S})

    both = await asyncio.gather(sweeper.sweep(storage.epoch), sweeper.sweep(storage.epoch))

    assert [swept.left for swept in both] == [{}, {}]
    assert sum(len(swept.dropped) for swept in both) >= 1
    assert done(database) == {}


async def test_what_cannot_be_dropped_holds_up_nothing_else_and_is_tried_again(
    storage: Storage, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    query(database, "SELECT asyncproc.make_partitions(current_date - 20, 2, '{}')")
    (first, second) = sorted(name for name in partitions(database, State.FAILED))[:2]
    query(database, f"CREATE VIEW somebodys AS SELECT id FROM asyncproc.task_done_failed_{first}")
    sweeper = Retention(database, {State.FAILED: 7 * DAY_S})

    assert not await sweeper._is_swept(storage.epoch)
    assert not {first, second} & partitions(database, State.FAILED)
    assert f"{first} is over and not dropped yet" in caplog.text

    query(database, "DROP VIEW somebodys")
    assert await sweeper._is_swept(storage.epoch)


async def test_an_old_task_is_found_by_its_id_whatever_made_the_id(storage: Storage, database: str) -> None:
    old = await ended(storage, State.FAILED, 20)
    foreign = a_task(State.RUNNING)
    foreign.id = b"\xff" * 6 + b"\x4a" + foreign.id[7:]
    await write(storage, inserts=[foreign])
    await write(storage, failed=[(foreign.id, 1, "Boom", ERROR)])
    inspector = Inspector(database, 1)
    await inspector.open()

    assert await inspector.existing([old, foreign.id]) == {old, foreign.id}
    for task_id in (old, foreign.id):
        assert (await inspector.task(task_id) or pytest.fail("not found")).state is State.FAILED
        assert (await inspector.finished_task(task_id) or pytest.fail("not found")).state is State.FAILED
        assert (await write(storage, revived=[(task_id, NOW, NOW)])).refused == []
    await inspector.close()

    assert done(database) == {}
