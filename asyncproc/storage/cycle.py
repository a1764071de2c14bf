"""The one transaction of a cycle, the pages that follow it, and the takeover that begins a reign."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from uuid import UUID

import psycopg

from asyncproc import failpoints
from asyncproc.clock import monotonic
from asyncproc.core.decision import PageWanted
from asyncproc.core.events import Loaded, Page, Released
from asyncproc.core.settings import LARGE_BYTES
from asyncproc.core.states import State
from asyncproc.core.task import Task, TaskId
from asyncproc.errors import EpochLost, StorageUnavailable
from asyncproc.storage import dependents, schedules
from asyncproc.storage.arrays import bigints, floats, ints, texts, uuids
from asyncproc.storage.batch import Batch, Statement
from asyncproc.storage.bisect import salvage
from asyncproc.storage.connection import Connection, Fence, first_line, is_about_a_row, is_away, open_writer, shut
from asyncproc.storage.ranks import rank_anew
from asyncproc.storage.retention import make_ahead
from asyncproc.storage.rows import to_tasks
from asyncproc.storage.statements import moves, pages, reign

P = ParamSpec("P")
T = TypeVar("T")

_EPOCH_OVER: Final = "AP001"
_NO_PARTITION: Final = "23514"
_NO_ID: Final = b"\x00" * 16
ANSWER_S: Final = 75.0
"""Longer than Postgres itself lets a statement take (`statement_timeout`)."""
_LEAST_PAGE_BYTES: Final = 64 * 1024
_VALUE_HEADER: Final = 4
"""What Postgres adds to the size of a value, at most."""


@dataclass(slots=True)
class Committed:
    """What became of a batch, and what was read after it."""

    refused: list[TaskId] = field(default_factory=list)
    """Ids for which the table holds something else than the core believes."""
    pages: list[Page] = field(default_factory=list)
    payloads: dict[TaskId, bytes] = field(default_factory=dict)
    checkpoints: dict[TaskId, bytes | None] = field(default_factory=dict)
    released: Released | None = None
    """Tasks whose parents ended."""
    rejected: dict[TaskId, str] = field(default_factory=dict)
    """Ids of which nothing was written because Postgres cannot keep a value of theirs, and what is wrong with it."""


class Storage:
    """The QueueActor's writing side. Calls take turns; every one may raise `StorageUnavailable` or `EpochLost`."""

    def __init__(
        self,
        conninfo: str,
        page_bytes: int,
        monthly: Collection[State] = (),
        large_bytes: int = LARGE_BYTES,
        answer_s: float = ANSWER_S,
    ) -> None:
        """`monthly` are the states whose finished tasks are parted by month and not by day. Payloads of more than
        `large_bytes` do not come with their rows. A commit that is not answered within `answer_s` ends its
        connection."""
        self._conninfo = conninfo
        self._page_bytes = page_bytes
        self._monthly = monthly
        self._large_bytes = large_bytes
        self._answer_s = answer_s
        self._connection: Connection | None = None
        self._turns = asyncio.Lock()
        self.epoch = 0

    async def take_over(self) -> float:
        """Begin a reign and end all others; returns the database's clock. Only after this is anything loaded."""
        async with self._turn() as connection, self._answered():
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '2s'")
                try:
                    async with connection.transaction():
                        await connection.execute(reign.LOCK_EXCLUSIVE, [reign.LOCK_KEY])
                except psycopg.errors.LockNotAvailable:
                    await connection.execute(reign.END_HOLDERS, [reign.LOCK_KEY])
                    await connection.execute(reign.LOCK_EXCLUSIVE, [reign.LOCK_KEY])
                (row,) = await _rows(connection, reign.TAKE_EPOCH)
                read_at = monotonic()
            epoch, now = row
            await make_ahead(connection, None, self._monthly)
            self.epoch = epoch
            # The partitions of a first start take a while: a clock anchored without it would be late all reign long.
            return float(now) + monotonic() - read_at

    async def load(self, aging_s: Mapping[str, float], default_aging_s: float) -> Loaded:
        """All that runs, and the lanes that have rows; ranks are computed anew where aging was configured anew."""
        async with self._turn() as connection:
            lanes = [(row[0], (row[1], row[2], row[3], row[4])) for row in await _rows(connection, pages.LANES)]
            names = list(dict.fromkeys(queue for queue, _ in lanes))
            await rank_anew(connection, self._fence, names, aging_s, default_aging_s)
            failpoints.hit("queue.mid_load")
            async with connection.transaction():
                # The planner may read the whole table here, once a reign: no index may know what is running.
                await connection.execute("SET LOCAL enable_seqscan = on")
                running = to_tasks(await _binary_rows(connection, pages.RUNNING, [self._large_bytes]))
            levels = {row[0]: (row[1], row[2]) for row in await _rows(connection, pages.LEVELS)}
            owed = await dependents.load(connection)
            return Loaded(running, lanes, levels, owed, *await schedules.found(connection))

    async def commit(
        self,
        batch: Batch | None,
        wanted: Sequence[PageWanted],
        replay: bool,
        payloads: Sequence[TaskId] = (),
        checkpoints: Sequence[TaskId] = (),
    ) -> Committed:
        """Write a batch and read the pages, payloads and checkpoints that its step asked for.

        `replay` says that an earlier try may have been committed: the same rows are then written only where they are
        missing. Raises `EpochLost` where another QueueActor reigns.
        """
        async with self._turn(), self._answered():
            committed = Committed() if batch is None else await self._record(batch, replay)
            if wanted:
                committed.pages = await self._pages(await self._open(), wanted)
            if payloads:
                rows = await _rows(await self._open(), pages.PAYLOADS, [uuids(payloads)])
                committed.payloads = {row[0].bytes: row[1].encode() for row in rows}
            if checkpoints:
                rows = await _rows(await self._open(), pages.CHECKPOINTS, [uuids(checkpoints)])
                committed.checkpoints = {row[0].bytes: None if row[1] is None else row[1].encode() for row in rows}
            return committed

    async def between(
        self, work: Callable[Concatenate[Connection, Fence, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do something between two commits. Each of its transactions that writes must begin with the fence."""
        async with self._turn() as connection, self._answered():
            return await work(connection, self._fence, *args, **kwargs)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _record(self, batch: Batch, replay: bool) -> Committed:
        committed = Committed()
        try:
            as_expected, committed.released = await self._write(await self._open(), batch, replay)
        except psycopg.Error as error:
            if not is_about_a_row(error):
                raise
            await self.close()
            if error.sqlstate == _NO_PARTITION:
                # The clock of this reign went far from the database's: after weeks asleep, say.
                await make_ahead(await self._open(), batch.now, self._monthly)
            committed.rejected = await salvage(self._write_part, batch.writes, batch.now)
            as_expected = False
            if batch.family is not None:
                committed.released = await dependents.overlooked(await self._open(), batch.family)
        if replay or not as_expected:
            refused = await self._refused(await self._open(), batch)
            committed.refused = [task_id for task_id in refused if task_id not in committed.rejected]
        return committed

    async def _write_part(self, batch: Batch) -> str | None:
        """Write a part of a batch that failed; the answer is what Postgres has against one of its rows."""
        try:
            await self._write(await self._open(), batch, replay=True)
        except psycopg.Error as error:
            if not is_about_a_row(error):
                raise
            await self.close()
            return first_line(error)
        return None

    async def _write(self, connection: Connection, batch: Batch, replay: bool) -> tuple[bool, Released | None]:
        """One transaction; whether every statement changed the rows it was expected to, and whom it released."""
        cursors: list[tuple[psycopg.AsyncCursor[tuple[object, ...]], int]] = []

        async def send(statement: Statement) -> None:
            cursor = await connection.execute(statement.text, statement.parameters)
            cursors.append((cursor, statement.expected))

        async def finish() -> tuple[psycopg.AsyncCursor[tuple[object, ...]], dependents.Settled | None]:
            for statement in batch.after:
                await send(statement)
            settled = None if batch.family is None else await dependents.settle(connection, batch.family)
            await _before_commit(connection)
            return await connection.execute("COMMIT"), settled

        insert = batch.insert_again() if replay else batch.insert
        copy = None if replay else batch.copy
        async with connection.pipeline():
            await connection.execute("BEGIN")
            await self._fence(connection)
            for statement in batch.ended:
                await send(statement)
            if copy is None:
                if insert is not None:
                    await send(insert)
                last, settled = await finish()
        if copy is not None:
            async with connection.cursor().copy(moves.COPY_IN) as stream:
                await stream.write(copy)
            async with connection.pipeline():
                last, settled = await finish()
        failpoints.hit("queue.after_commit")
        if last.statusmessage != "COMMIT":
            raise psycopg.OperationalError(f"COMMIT was answered with {last.statusmessage}")
        as_expected = all(cursor.rowcount == expected for cursor, expected in cursors)
        if settled is None or batch.family is None:
            return as_expected, None
        return as_expected, await self._released(connection, batch.family, settled, replay)

    async def _released(
        self, connection: Connection, family: dependents.Family, settled: dependents.Settled, replay: bool
    ) -> Released | None:
        if replay:
            # An earlier try may have released some already: they are found where they are now.
            return await dependents.overlooked(connection, family)
        return await dependents.released(connection, family, settled, self._large_bytes, self._page_bytes)

    async def _fence(self, connection: Connection) -> None:
        await connection.execute(reign.LOCK_SHARED, [reign.LOCK_KEY])
        await connection.execute(reign.PROVE_EPOCH, [self.epoch])

    async def _refused(self, connection: Connection, batch: Batch) -> list[TaskId]:
        """Ask the table which of the rows that this batch made, started or changed are not what the core believes."""
        believed = [(task_id, lease, State.RUNNING) for task_id, lease in batch.started] + batch.waiting
        columns = [
            uuids(row[0] for row in believed),
            bigints(row[1] for row in believed),
            texts(row[2] for row in believed),
        ]
        agreeing = _ids(await _rows(connection, moves.AGREEING, columns))
        refused = [task_id for task_id, _, _ in believed if task_id not in agreeing]
        if batch.revived:
            live = _ids(await _rows(connection, moves.LIVE, [uuids(batch.revived)]))
            refused += [task_id for task_id in batch.revived if task_id not in live]
        if cancelled := [row[0] for row in (*batch.writes.cancelled, *batch.writes.overflown)]:
            ended = _ids(await _rows(connection, moves.CANCELLED, [uuids(cancelled), batch.now]))
            refused += [task_id for task_id in cancelled if task_id not in ended]
        if changed := batch.writes.changed:
            ids, *_, priorities, queues, instants, _ = zip(*changed, strict=True)
            columns = [uuids(ids), ints(priorities), texts(queues), floats(instants)]
            agreeing = _ids(await _rows(connection, moves.CHANGED, columns))
            refused += [task_id for task_id in ids if task_id not in agreeing]
        if replaced := batch.writes.replaced:
            columns = [
                uuids(row[0] for row in replaced),
                ints(row[-1][2].priority for row in replaced),
                texts(row[-1][2].queue for row in replaced),
                floats(row[7] for row in replaced),
            ]
            agreeing = _ids(await _rows(connection, moves.CHANGED, columns))
            refused += [row[0] for row in replaced if row[0] not in agreeing]
        return list(dict.fromkeys(refused))

    async def _pages(self, connection: Connection, wanted: Sequence[PageWanted]) -> list[Page]:
        ready = [page for page in wanted if page.queue is not None]
        read = await self._ready_pages(connection, ready) if ready else []
        return [*read, *[await self._due_page(connection, page) for page in wanted if page.queue is None]]

    async def _due_page(self, connection: Connection, wanted: PageWanted) -> Page:
        instant, task_id = wanted.after
        # No instant lies before this one, and Postgres has no timestamp for minus infinity in seconds.
        after = [max(instant, 0.0), UUID(bytes=task_id or _NO_ID), wanted.limit, self._page_bytes]
        tasks = to_tasks(await _binary_rows(connection, pages.DUE_PAGE, [self._large_bytes, *after]))
        last = (tasks[-1].ready_at, tasks[-1].id) if tasks else None
        return Page(None, wanted.lane, tasks, last, _is_last(tasks, wanted.limit, self._page_bytes))

    async def _ready_pages(self, connection: Connection, wanted: Sequence[PageWanted]) -> list[Page]:
        most_bytes = max(min(_LEAST_PAGE_BYTES, self._page_bytes), self._page_bytes // len(wanted))
        columns: list[object] = [
            texts(page.queue for page in wanted),
            *(texts(page.lane[part] for page in wanted) for part in range(4)),
            floats(page.after[0] for page in wanted),
            uuids(page.after[1] or _NO_ID for page in wanted),
            ints(page.limit for page in wanted),
        ]
        rows = await _binary_rows(connection, pages.READY_PAGES, [*columns, self._large_bytes, most_bytes])
        tasks: list[list[Task]] = [[] for _ in wanted]
        for row, task in zip(rows, to_tasks([row[1:] for row in rows]), strict=True):
            tasks[row[0] - 1].append(task)
        return [
            Page(
                page.queue,
                page.lane,
                found,
                (found[-1].rank, found[-1].id) if found else None,
                _is_last(found, page.limit, most_bytes),
            )
            for page, found in zip(wanted, tasks, strict=True)
        ]

    async def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await open_writer(self._conninfo)
        return self._connection

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Connection]:
        """The connection, for one call at a time. Whatever goes wrong in it ends the connection too: it may have been
        left inside a pipeline or a transaction, and where a prepared statement failed, client and server disagree on
        whether there is one."""
        async with self._turns:
            try:
                yield await self._open()
            except BaseException as error:
                await self.close()
                if isinstance(error, psycopg.Error):
                    raise self._translated(error) from error
                raise

    @asynccontextmanager
    async def _answered(self) -> AsyncIterator[None]:
        """Cut the connection off where no answer comes: a proxy in between may stay while all behind it is gone, and
        to the kernel such a connection is alive. A cancellation would wait for the server's answer to it."""
        timer = asyncio.get_running_loop().call_later(self._answer_s, self._cut_off)
        try:
            yield
        finally:
            timer.cancel()

    def _cut_off(self) -> None:
        if self._connection is not None and not self._connection.closed:
            shut(self._connection)

    def _translated(self, error: psycopg.Error) -> Exception:
        if error.sqlstate == _EPOCH_OVER:
            return EpochLost(self.epoch)
        return StorageUnavailable(first_line(error)) if is_away(error) else error


async def _before_commit(connection: Connection) -> None:
    if failpoints.armed:
        # What is in the pipeline has reached Postgres: it is the COMMIT alone that is missing.
        await (await connection.execute("SELECT 1")).fetchone()
        failpoints.hit("queue.before_commit")


async def _rows(connection: Connection, text: Any, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    return await (await connection.execute(text, parameters)).fetchall()


async def _binary_rows(connection: Connection, text: Any, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
    # To read the same rows as text takes half as long again.
    cursor = connection.cursor(binary=True)
    await cursor.execute(text, parameters)
    return await cursor.fetchall()


def _ids(rows: Iterable[Sequence[Any]]) -> set[TaskId]:
    return {row[0].bytes for row in rows}


def _is_last(tasks: Sequence[Task], limit: int, most_bytes: int) -> bool:
    """A page cut by its bytes is shorter than asked for and yet not the last; the next, empty one then is."""
    cut = sum(len(task.payload) + _VALUE_HEADER for task in tasks) >= most_bytes
    return len(tasks) < limit and not cut
