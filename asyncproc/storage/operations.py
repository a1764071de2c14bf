"""Operations on all tasks that match a filter, as they are kept and as they read the tables: page by page, by id."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool

from asyncproc.core.asked import Action, Change, applies_to
from asyncproc.core.record import OperationState, Order, Progress, TaskFilter
from asyncproc.core.states import FINAL, State
from asyncproc.core.task import Task, TaskId
from asyncproc.errors import EpochLost, StorageUnavailable
from asyncproc.storage.arrays import register, texts, uuids
from asyncproc.storage.connection import Connection, first_line, hardened
from asyncproc.storage.inspector import Inspector, filter_parameters
from asyncproc.storage.rows import not_ended_before, to_tasks
from asyncproc.storage.statements import operations, reign

KEPT_S: Final = 30 * 86_400.0
"""How long a finished operation can be looked at."""
LARGEST_BYTES: Final = 4096
"""A page carries no larger payloads; the few of them that come into memory read theirs when they are leased."""
SHOWN: Final = 100
LOOK_S: Final = 5.0
_EPOCH_OVER: Final = "AP001"
_NO_ID: Final = UUID(int=0)
# Custom plans, for the filter is mostly empty; by the primary key, whatever is known of the tables.
_OPTIONS: Final = (
    "-c plan_cache_mode=force_custom_plan -c constraint_exclusion=on -c enable_seqscan=off -c enable_bitmapscan=off"
    " -c enable_sort=off -c jit=off -c lock_timeout=5s -c statement_timeout=20s"
    " -c idle_in_transaction_session_timeout=10s -c timezone=UTC"
)


@dataclass(slots=True)
class Running:
    """An operation that is not over: what it is to do, and up to which id it has come and has to come."""

    order: Order
    created_at: float
    reached: UUID
    upto: UUID


@dataclass(frozen=True, slots=True)
class Found:
    tasks: list[Task]
    reached: UUID
    """All that is meant up to this id is among the tasks."""
    is_last: bool


class Operations:
    """The writing side; all but `found` changes nothing once another epoch reigns. Every call may raise
    `StorageUnavailable` or `EpochLost`."""

    def __init__(self, conninfo: str) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            hardened(conninfo, "asyncproc-operations", _OPTIONS),
            min_size=0,
            max_size=2,
            timeout=2.0,
            reconnect_timeout=1.0,
            open=False,
            check=AsyncConnectionPool.check_connection,
            kwargs={"autocommit": True},
            configure=_configure,
        )
        self._epoch = 0

    async def open(self, epoch: int) -> None:
        self._epoch = epoch
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def add(self, order: Order, now: float) -> None:
        """Write it down; nothing where it is there already. What comes after `now` is not meant."""
        text = operations.DONE_LAST if _is_of_done(order) else operations.LIVE_LAST
        async with self._fenced() as connection:
            rows = await _rows(connection, text, {"domain": _domain(order)})
            row = [
                UUID(bytes=order.id),
                order.action,
                filter_text(order.narrowed),
                _arguments(order.change),
                order.rate,
            ]
            await connection.execute(operations.ADD, [*row, rows[0][0] if rows else _NO_ID, now])
            await connection.execute(operations.FORGET, [KEPT_S])

    async def running(self) -> list[Running]:
        """Those that are not over, the oldest first."""
        async with self._connection() as connection:
            rows = await _rows(connection, operations.RUNNING, {})
        found = [(_progress(row[:-2]), row[-2], row[-1]) for row in rows]
        return [Running(progress.order, progress.created_at, reached, upto) for progress, reached, upto in found]

    async def found(self, operation: Running, look_at: int, most: int) -> Found:
        """The next tasks that match, at most so many, among at most so many."""
        of_done = _is_of_done(operation.order)
        asked = {**_asked(operation), "look_at": look_at, "most": most}
        async with self._connection() as connection:
            end = operations.DONE_END if of_done else operations.LIVE_END
            rows = await _rows(connection, end, asked)
            reached = rows[0][0] if rows else operation.upto
            tasks = await _tasks(connection, of_done, asked | {"upto": reached})
        if len(tasks) == most:
            return Found(tasks, UUID(bytes=tasks[-1].id), is_last=False)
        return Found(tasks, reached, is_last=not rows)

    async def again(self, operation: Running, ids: Sequence[TaskId]) -> list[Task]:
        """Of these tasks those that still match, as they are now."""
        narrowed = replace(operation.order.narrowed, id=tuple(ids))
        asked = {**_asked(operation), **filter_parameters(narrowed), "most": len(ids)}
        async with self._connection() as connection:
            return await _tasks(connection, _is_of_done(operation.order), asked | {"after": _NO_ID})

    async def delete(self, operation: Running, tasks: Sequence[Task]) -> int:
        """Delete finished tasks; how many of them were still there."""
        ids = [task.id for task in tasks]
        async with self._fenced() as connection:
            columns = [uuids(ids), texts(_domain(operation.order)), not_ended_before(ids)]
            return (await connection.execute(operations.DELETE, columns)).rowcount

    async def advance(self, operation: Running, found: Found, done: int) -> bool:
        """Write down how far it has come; False where it was cancelled."""
        matched = len(found.tasks)
        row = [found.reached, matched, done, matched - done, found.is_last, UUID(bytes=operation.order.id)]
        async with self._fenced() as connection:
            return (await connection.execute(operations.ADVANCE, row)).rowcount == 1

    async def cancel(self, operation_id: bytes) -> bool:
        """Do nothing more of it; False where it is not running."""
        async with self._fenced() as connection:
            return (await connection.execute(operations.CANCEL, [UUID(bytes=operation_id)])).rowcount == 1

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except psycopg.Error as error:
            if error.sqlstate == _EPOCH_OVER:
                raise EpochLost(self._epoch) from error
            # Whatever it is: the cycle, which this must not end, says it of itself where Postgres is at fault.
            raise StorageUnavailable(first_line(error)) from error

    @asynccontextmanager
    async def _fenced(self) -> AsyncIterator[Connection]:
        async with self._connection() as connection, connection.transaction():
            await connection.execute(reign.LOCK_SHARED, [reign.LOCK_KEY])
            await connection.execute(reign.PROVE_EPOCH, [self._epoch])
            yield connection


async def latest(inspector: Inspector) -> list[Progress]:
    """The newest first."""
    return [_progress(row) for row in await inspector.within(LOOK_S, operations.LATEST, [SHOWN]) or []]


async def one(inspector: Inspector, operation_id: bytes) -> Progress | None:
    rows = await inspector.within(LOOK_S, operations.ONE, [UUID(bytes=operation_id)])
    return _progress(rows[0]) if rows else None


async def _configure(connection: Connection) -> None:
    register(connection)


async def _rows(connection: Connection, text: LiteralString, asked: dict[str, object]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(text, asked)).fetchall()


async def _tasks(connection: Connection, of_done: bool, asked: dict[str, object]) -> list[Task]:
    cursor = connection.cursor(binary=True)
    await cursor.execute(operations.DONE_PAGE if of_done else operations.LIVE_PAGE, asked)
    return to_tasks(await cursor.fetchall())


def _asked(operation: Running) -> dict[str, object]:
    return {
        **filter_parameters(operation.order.narrowed),
        "domain": _domain(operation.order),
        "after": operation.reached,
        "upto": operation.upto,
        "made_before": operation.created_at,
        "largest": 0 if operation.order.action in {Action.CANCEL, Action.DELETE} else LARGEST_BYTES,
    }


def _is_of_done(order: Order) -> bool:
    return FINAL.issuperset(applies_to(order.action))


def _domain(order: Order) -> list[str]:
    return sorted(applies_to(order.action))


def filter_text(narrowed: TaskFilter) -> str:
    return json.dumps(filter_json(narrowed))


def filter_json(narrowed: TaskFilter) -> dict[str, Any]:
    """In the names of the API."""
    asked = {name.name: getattr(narrowed, name.name) for name in fields(narrowed)}
    ids = narrowed.id
    if ids is not None:
        asked["id"] = [str(UUID(bytes=task_id)) for task_id in (ids if isinstance(ids, tuple) else (ids,))]
    return {_camel(name): value for name, value in asked.items() if value is not None}


def filter_of(text: str) -> TaskFilter:
    asked: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in _read(text)}
    if "state" in asked:
        states = asked["state"]
        asked["state"] = tuple(map(State, states)) if isinstance(states, tuple) else State(states)
    if "id" in asked:
        asked["id"] = tuple(UUID(task_id).bytes for task_id in asked["id"])
    return TaskFilter(**asked)


def _arguments(change: Change) -> str:
    return json.dumps({name: value for name, value in change._asdict().items() if value is not None})


def _read(text: str) -> list[tuple[str, Any]]:
    return [(_snake(name), value) for name, value in json.loads(text).items()]


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _progress(row: Sequence[Any]) -> Progress:
    id_, action, filter_, arguments, rate, state, created_at, finished_at, matched, done, skipped = row
    order = Order(id_.bytes, Action(action), filter_of(filter_), Change(**json.loads(arguments)), rate)
    return Progress(order, OperationState(state), created_at, finished_at, matched, done, skipped)
