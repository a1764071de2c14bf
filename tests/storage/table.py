"""Tasks, writes and the content of the tables, in the words of the tests."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import psycopg

from asyncproc.clock import TaskIds, monotonic, wall_now
from asyncproc.core.decision import Key, PageWanted, Writes
from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import State
from asyncproc.core.task import Options, Task, TaskId
from asyncproc.storage.batch import build
from asyncproc.storage.connection import Connection
from asyncproc.storage.cycle import Committed, Storage

NOW: Final = round(wall_now(), 6)
START: Final[Key] = (float("-inf"), b"")
PAGE_BYTES: Final = 1 << 20
ERROR: Final = b'{"type": "Boom", "message": "it broke", "traceback": "..."}'
_IDS: Final = TaskIds()
LANE: Final = ("send", "", "", "")
_OPTIONS: Final = Options("send", "mail", 2, RetryPolicy(3, 1.5, 2.0, 60.0, 0.1), "me")


def a_task(state: State = State.QUEUED, **changes: Any) -> Task:
    """A new task; a running one is under its first lease."""
    options = _OPTIONS._replace(**{name: changes.pop(name) for name in Options._fields if name in changes})
    fields: dict[str, Any] = {"payload": b'{"n": 1}', "ready_at": NOW, "created_at": NOW, **changes}
    task = Task(_IDS.make(), options=options, state=state, **fields)
    if state in {State.QUEUED, State.RUNNING}:
        task.rank = changes.get("rank", task.ready_at - 60.0 * options.priority)
    if state is State.RUNNING:
        task.lease, task.attempt, task.worker = 1, 1, "w"
    return task


def claim(task: Task, lease: int = 1, worker: str = "w") -> tuple[TaskId, int, int, float, str]:
    return (task.id, lease, lease, task.rank, worker)


async def write(storage: Storage, **writes: Any) -> Committed:
    return await storage.commit(build(Writes(**writes), NOW), [], False)


async def write_again(storage: Storage, **writes: Any) -> Committed:
    return await storage.commit(build(Writes(**writes), NOW), [], True)


async def page(storage: Storage, queue: str | None, after: Key = START, limit: int = 1000) -> list[Task]:
    return (await storage.commit(None, [PageWanted(queue, LANE, after, limit)], False)).pages[0].tasks


def live(database: str) -> dict[TaskId, dict[str, Any]]:
    return _content(database, "SELECT * FROM asyncproc.task_live ORDER BY id")


def done(database: str) -> dict[TaskId, dict[str, Any]]:
    return _content(database, "SELECT * FROM asyncproc.task_done ORDER BY id, finished_at")


def query(database: str, text: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(text.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    deadline = monotonic() + seconds
    while not await condition():
        assert monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0)


async def waits_for_a_lock(connection: Connection, how_many: int) -> bool:
    # Within a transaction the view shows what it showed first.
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    cursor = await connection.execute(
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return cursor.rowcount == how_many


def _content(database: str, text: str) -> dict[TaskId, dict[str, Any]]:
    with psycopg.connect(database, row_factory=psycopg.rows.dict_row) as connection:
        rows = connection.execute(text.encode()).fetchall()
    assert len({row["id"] for row in rows}) == len(rows), "a task has two rows"
    return {row["id"].bytes: row for row in rows}
