"""What running tasks note: once however often it is written, for as long as their attempt runs, and kept for ever."""

import json
from typing import Any

import pytest

from asyncproc.core.events import Note
from asyncproc.core.states import State
from asyncproc.core.task import Task
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from tests.storage.table import ERROR, NOW, a_task, claim, done, live, page, query, write, write_again

DONE = b'{"done": 1}'


def note(task: Task, number: int, lease: int = 1, **parts: bytes) -> Note:
    return (task.id, lease, number, parts.get("progress"), parts.get("checkpoint"), parts.get("log"))


async def running(storage: Storage) -> Task:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    return task


async def again(storage: Storage, task: Task, lease: int) -> None:
    """The attempt fails, and the next one begins."""
    await write(storage, retried=[(task.id, lease - 1, NOW, 0, "Boom", ERROR)])
    await write(storage, claims=[claim(task, lease)])


async def test_the_newest_note_counts_and_what_it_does_not_say_stays(storage: Storage, database: str) -> None:
    task, other = await running(storage), await running(storage)
    await write(storage, notes=[note(task, 1, progress=DONE, checkpoint=b"[1]", log=b'{"n": 1}')])
    await write(storage, notes=[note(task, 3, log=b'{"n": 1},{"n": 3}')])
    for late in (note(task, 2, checkpoint=b"[2]"), note(task, 9, lease=2, checkpoint=b"[9]")):
        assert (await write(storage, notes=[late])).refused == []

    row = live(database)[task.id]
    assert (row["progress"], row["checkpoint"], row["noted"] & 0xFFFFFFFF) == ({"done": 1}, [1], 3)
    assert row["log"] == ['{"n": 1},{"n": 3}']
    assert live(database)[other.id]["noted"] is None


async def test_a_replay_changes_nothing(storage: Storage, database: str) -> None:
    task = await running(storage)
    noted = note(task, 1, progress=DONE, checkpoint=b"1", log=b'{"n": 1}')
    await write(storage, notes=[noted])
    before = live(database)
    await write_again(storage, notes=[noted])
    assert live(database) == before

    ending: dict[str, Any] = {"notes": [note(task, 2, checkpoint=b"2")], "failed": [(task.id, 1, "Boom", ERROR)]}
    await write(storage, **ending)
    ended = done(database)
    await write_again(storage, **ending)
    assert (done(database), live(database)) == (ended, {})
    assert ended[task.id]["checkpoint"] == 2


async def test_each_attempt_has_its_lines_and_the_newest_stay(storage: Storage, database: str) -> None:
    task = await running(storage)
    await write(storage, notes=[note(task, 1, log=b"first")])
    await again(storage, task, 2)
    await write(storage, notes=[note(task, 1, lease=2, progress=DONE)])
    await write(storage, notes=[note(task, 2, lease=2, log=b"second")])
    assert live(database)[task.id]["log"] == ["first", "second"]

    await again(storage, task, 3)
    await write(storage, notes=[note(task, 1, lease=3, log=b"x" * 70_000)])
    assert live(database)[task.id]["log"] == ["x" * 70_000]
    for lease in range(4, 30):
        await again(storage, task, lease)
        await write(storage, notes=[note(task, 1, lease=lease, log=b"%d" % lease)])
    assert live(database)[task.id]["log"] == [str(lease) for lease in range(10, 30)]


async def test_a_checkpoint_is_read_for_the_lease_and_its_size_with_the_row(storage: Storage, database: str) -> None:
    task, bare = await running(storage), await running(storage)
    large = json.dumps(["x" * 50_000]).encode()
    await write(storage, notes=[note(task, 1, checkpoint=large)])
    await write(storage, requeued=[(task.id, 1, 0), (bare.id, 1, 0)])

    paged = {found.id: found.checkpoint_bytes for found in await page(storage, "mail")}
    assert paged[bare.id] == 0
    assert len(large) <= paged[task.id] <= len(large) + 8
    gone = a_task()
    committed = await storage.commit(None, [], False, [], [task.id, bare.id, gone.id])
    assert committed.checkpoints == {task.id: large, bare.id: None}


@pytest.mark.parametrize(
    "ending",
    [
        {"failed": lambda task: (task.id, 1, "Boom", ERROR)},
        {"succeeded": lambda task: (task.id, 1, b"1")},
        {"cancelled": lambda task: (task.id, 1, "unwanted")},
    ],
    ids=lambda ending: next(iter(ending)),
)
async def test_what_was_noted_with_the_end_goes_with_the_row_and_comes_back(
    storage: Storage, database: str, ending: dict[str, Any]
) -> None:
    task = await running(storage)
    noted = note(task, 1, progress=DONE, checkpoint=b"[1]", log=b'{"n": 1}')
    await write(storage, notes=[noted], **{kind: [row(task)] for kind, row in ending.items()})
    ended = done(database)[task.id]
    assert (ended["progress"], ended["checkpoint"], ended["log"]) == ({"done": 1}, [1], ['{"n": 1}'])
    if "failed" in ending:
        await write(storage, revived=[(task.id, NOW, 1.0)])
        assert live(database)[task.id]["checkpoint"] == [1]


async def test_to_note_something_stays_on_the_page(storage: Storage, database: str) -> None:
    task = await running(storage)
    hot = "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'task_live'"
    count = 5
    for number in range(1, count + 1):
        await write(storage, notes=[note(task, number, progress=DONE, log=b'{"n": 1}')])
    query(database, "SELECT pg_stat_force_next_flush()")
    await storage.close()  # its session tells what it counted when it ends
    from tests.eventually import eventually

    eventually(lambda: query(database, hot) == [(count, count)])


async def test_people_see_it(storage: Storage, database: str) -> None:
    task = await running(storage)
    inspector = Inspector(database)
    await inspector.open()
    before = (await inspector.glimpses([task.id]))[task.id]
    await write(storage, notes=[note(task, 1, progress=DONE, checkpoint=b"[1]", log=b'{"n": 1},{"n": 2}')])
    assert (await inspector.glimpses([task.id]))[task.id] != before
    record = await inspector.task(task.id)
    assert record is not None
    assert (record.progress, record.checkpoint, record.log) == (DONE, b"[1]", b'[{"n": 1},{"n": 2}]')
    await inspector.close()
