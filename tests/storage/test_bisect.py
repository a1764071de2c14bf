from hashlib import sha512
from typing import Any

import pytest

from asyncproc.core.decision import Writes
from asyncproc.core.states import State
from asyncproc.errors import EpochLost
from asyncproc.storage.batch import COPY_FROM, build
from asyncproc.storage.cycle import Committed, Storage
from tests.storage.table import ERROR, NOW, a_task, claim, done, live, write, write_again

BAD_TEXTS = {
    "not JSON": b"{",
    "a NUL": b'"\x00"',
    "not UTF-8": b'"\xff"',
    "nested too deep": b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("bad", BAD_TEXTS.values(), ids=BAD_TEXTS)
@pytest.mark.parametrize("size", [5, COPY_FROM])
async def test_a_bad_payload_fails_alone(storage: Storage, database: str, bad: bytes, size: int) -> None:
    running, waiting = a_task(State.RUNNING), a_task()
    await write(storage, inserts=[running, waiting])
    good = [a_task() for _ in range(size - 1)]
    culprit = a_task(payload=bad)

    committed = await write(
        storage,
        inserts=[*good[:3], culprit, *good[3:]],
        succeeded=[(running.id, 1, b"1")],
        claims=[claim(waiting)],
    )

    assert set(committed.rejected) == {culprit.id}
    assert committed.refused == []
    assert live(database).keys() == {waiting.id, *(task.id for task in good)}
    assert done(database).keys() == {running.id}
    assert live(database)[waiting.id]["state"] == "running"


ENDINGS: dict[str, Any] = {
    "succeeded": lambda task, bad: (task.id, 1, bad),
    "failed": lambda task, bad: (task.id, 1, "Boom", bad),
    "retried": lambda task, bad: (task.id, 1, NOW, 0, "Boom", bad),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_bad_ending_fails_alone_and_its_task_still_runs(storage: Storage, database: str, ending: str) -> None:
    good, bad, other = a_task(State.RUNNING), a_task(State.RUNNING), a_task()
    await write(storage, inserts=[good, bad])

    committed = await write(
        storage, **{ending: [ENDINGS[ending](good, b'{"a": 1}'), ENDINGS[ending](bad, b"}")]}, inserts=[other]
    )

    assert set(committed.rejected) == {bad.id}
    assert "json" in committed.rejected[bad.id]
    row = live(database)[bad.id]
    assert (row["state"], row["lease"], row["errors"]) == ("running", 1, [])
    assert other.id in live(database)
    assert good.id in done(database) or live(database)[good.id]["state"] == "retrying"


async def test_the_rejected_can_be_recorded_as_failed_by_the_next_cycle(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    committed = await write(storage, succeeded=[(task.id, 1, b'"\x00"')])

    await write(storage, failed=[(task.id, 1, committed.rejected[task.id], ERROR)])

    assert done(database)[task.id]["state"] == "failed"


async def test_all_rows_of_a_rejected_task_stay_out(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])

    committed = await write(storage, retried=[(task.id, 1, NOW, 0, "E", b"}")], claims=[claim(task, lease=2)])

    assert committed.rejected.keys() == {task.id}
    assert committed.refused == []
    assert live(database)[task.id]["lease"] == 1


async def test_every_bad_row_is_named_and_every_good_one_written(storage: Storage, database: str) -> None:
    tasks = [a_task(payload=b"{" if n % 5 == 0 else b"{}") for n in range(40)]
    # Longer than an entry of an index can be, and not to be packed.
    unindexable = a_task(queue="".join(sha512(b"%d" % n).hexdigest() for n in range(60)))

    committed = await write(storage, inserts=[*tasks, unindexable])

    bad = {unindexable.id, *(task.id for n, task in enumerate(tasks) if n % 5 == 0)}
    assert set(committed.rejected) == bad
    assert live(database).keys() == {task.id for task in tasks} - bad


async def test_half_a_character_ends_nobodys_cycle(storage: Storage, database: str) -> None:
    for size in (1, COPY_FROM):
        tasks = [a_task(created_by="\ud800") for _ in range(size)]

        assert await write(storage, inserts=tasks) == Committed()
        assert live(database)[tasks[0].id]["created_by"] == "?"


async def test_a_copy_of_tasks_that_are_there_leaves_them_alone(storage: Storage, database: str) -> None:
    waiting, started = a_task(), a_task()
    await write(storage, inserts=[waiting, started])
    await write(storage, claims=[claim(started)])
    before = live(database)
    new = [a_task() for _ in range(COPY_FROM)]

    committed = await write(storage, inserts=[*new, waiting, started])

    assert committed == Committed(refused=[started.id])
    after = live(database)
    assert {task_id: after[task_id] for task_id in before} == before
    assert after.keys() == before.keys() | {task.id for task in new}


async def test_a_bisection_is_fenced(storage: Storage, successor: Storage, database: str) -> None:
    await successor.take_over()

    with pytest.raises(EpochLost):
        await write(storage, inserts=[a_task(payload=b"{"), a_task()])

    assert live(database) == {}


async def test_a_bisection_can_be_replayed(storage: Storage, database: str) -> None:
    running = a_task(State.RUNNING)
    await write(storage, inserts=[running])
    bad = a_task(payload=b"{")
    writes: dict[str, Any] = {"inserts": [a_task(), bad, a_task()], "requeued": [(running.id, 1, 0)]}
    first = await write(storage, **writes)
    once = live(database)

    assert await write_again(storage, **writes) == first
    assert live(database) == once


@pytest.mark.parametrize("days", [-400, 400])
async def test_a_day_without_a_partition_rejects_nobody(storage: Storage, database: str, days: int) -> None:
    tasks = [a_task(State.RUNNING) for _ in range(3)]
    await write(storage, inserts=tasks)
    writes = Writes(succeeded=[(task.id, 1, b"1") for task in tasks])

    assert await storage.commit(build(writes, NOW + days * 86_400), [], False) == Committed()

    assert done(database).keys() == {task.id for task in tasks}
