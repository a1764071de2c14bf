"""The one transaction of a cycle, the pages that follow it, and the takeover that begins a reign."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import psycopg

from asyncproc.core.decision import PageWanted
from asyncproc.core.events import Loaded, Page
from asyncproc.core.task import Task, TaskId
from asyncproc.errors import EpochLost, StorageUnavailable
from asyncproc.storage import statements as sql
from asyncproc.storage.arrays import bigints, uuids
from asyncproc.storage.batch import Batch, Statement
from asyncproc.storage.connection import Connection, is_away, open_writer
from asyncproc.storage.rows import to_tasks

PARTITIONS_AHEAD: Final = 8
_NO_ID: Final = b"\x00" * 16
_VALUE_HEADER: Final = 4
"""What Postgres adds to the size of a value, at most."""


@dataclass(slots=True)
class Committed:
    """What became of a batch. `refused` are ids for which the table held something else than the core believed."""

    refused: list[TaskId] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)


class Storage:
    """The QueueActor's writing side. One call at a time; every call may raise `StorageUnavailable`."""

    def __init__(self, conninfo: str, page_bytes: int) -> None:
        self._conninfo = conninfo
        self._page_bytes = page_bytes
        self._connection: Connection | None = None
        self.epoch = 0

    async def take_over(self) -> float:
        """Begin a reign and end all others; returns the database's clock. Only after this is anything loaded."""
        try:
            connection = await self._open()
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '2s'")
                try:
                    async with connection.transaction():
                        await connection.execute(sql.LOCK_EXCLUSIVE, [sql.LOCK_KEY])
                except psycopg.errors.LockNotAvailable:
                    # A frozen QueueActor may sit on the lock: end its backend, then wait our turn.
                    await connection.execute(sql.END_BACKEND)
                    await connection.execute(sql.LOCK_EXCLUSIVE, [sql.LOCK_KEY])
                row = await (await connection.execute(sql.TAKE_EPOCH)).fetchone()
            if row is None:
                raise StorageUnavailable("the table of reigns is empty: run `asyncproc migrate`")
            self.epoch = _integer(row[0])
            await connection.execute(sql.MAKE_PARTITIONS, [PARTITIONS_AHEAD])
        except psycopg.Error as error:
            raise await self._unavailable(error) from error
        return float(str(row[1]))

    async def load(self, aging_s: Mapping[str, float], default_aging_s: float) -> Loaded:
        """All that runs, and the names of the queues; ranks are computed anew where aging was configured anew."""
        try:
            connection = await self._open()
            names = [str(row[0]) for row in await _rows(connection, sql.QUEUE_NAMES)]
            for name in names:
                await self._rerank(connection, name, aging_s.get(name, default_aging_s))
            # The planner may read the whole table here, once a reign: no index may know what is running.
            await connection.execute("SET enable_seqscan = on")
            running = to_tasks(await _rows(connection, sql.RUNNING))
            await connection.execute("SET enable_seqscan = off")
        except psycopg.Error as error:
            raise await self._unavailable(error) from error
        return Loaded(running, names)

    async def _rerank(self, connection: Connection, queue: str, aging_s: float) -> None:
        known = await _rows(connection, sql.AGING_OF, [queue])
        if known and known[0][0] == aging_s:
            return
        async with connection.transaction():
            await self._fence(connection)
            if known:
                await connection.execute("SET LOCAL statement_timeout = 0")
                await connection.execute(sql.RERANK, [aging_s, queue])
            await connection.execute(sql.SET_AGING, [queue, aging_s])

    async def commit(self, batch: Batch | None, wanted: Sequence[PageWanted], replay: bool) -> Committed:
        """Write a batch and read the pages that its step asked for.

        `replay` says that an earlier try may have been committed: the same rows are then written only where they are
        missing. Raises `EpochLost` where another QueueActor reigns.
        """
        committed = Committed()
        try:
            connection = await self._open()
            if batch is not None:
                changed = await self._write(connection, batch, replay)
                if replay or not changed:
                    committed.refused = await self._refused(connection, batch)
            for page in wanted:
                committed.pages.append(await self._page(connection, page))
        except psycopg.Error as error:
            if error.sqlstate == "AP001":
                raise EpochLost(self.epoch) from error
            raise await self._unavailable(error) from error
        return committed

    async def _write(self, connection: Connection, batch: Batch, replay: bool) -> bool:
        """One transaction; True where every statement changed the rows it was expected to."""
        cursors: list[tuple[psycopg.AsyncCursor[tuple[object, ...]], int]] = []

        async def send(statement: Statement) -> None:
            cursors.append((await connection.execute(statement.text, statement.parameters), statement.expected))

        copy = None if replay else batch.copy
        async with connection.pipeline():
            await connection.execute("BEGIN")
            await self._fence(connection)
            for statement in batch.ended:
                await send(statement)
            if copy is None:
                if batch.insert is not None:
                    await send(batch.insert)
                if batch.claim is not None:
                    await send(batch.claim)
                last = await connection.execute("COMMIT")
        if copy is not None:
            async with connection.cursor().copy(sql.COPY_IN) as stream:
                await stream.write(copy)
            async with connection.pipeline():
                if batch.claim is not None:
                    await send(batch.claim)
                last = await connection.execute("COMMIT")
        if last.statusmessage != "COMMIT":
            raise psycopg.OperationalError(f"COMMIT was answered with {last.statusmessage}")
        return all(cursor.rowcount == expected for cursor, expected in cursors)

    async def _fence(self, connection: Connection) -> None:
        await connection.execute(sql.LOCK_SHARED, [sql.LOCK_KEY])
        await connection.execute(sql.PROVE_EPOCH, [self.epoch])

    async def _refused(self, connection: Connection, batch: Batch) -> list[TaskId]:
        """Ask the table which of the starts it does not hold."""
        ids, leases = [start[0] for start in batch.started], [start[1] for start in batch.started]
        holding = _ids(await _rows(connection, sql.HOLDING, [uuids(ids), bigints(leases)]))
        live = set(batch.revived) and await self.existing(batch.revived)
        refused = [task_id for task_id in ids if task_id not in holding]
        return refused + [task_id for task_id in batch.revived if task_id not in live]

    async def existing(self, ids: Sequence[TaskId]) -> set[TaskId]:
        """Those of the ids that have a row, finished or not."""
        try:
            connection = await self._open()
            return _ids(await _rows(connection, sql.EXISTING, [uuids(ids), uuids(ids)]))
        except psycopg.Error as error:
            raise await self._unavailable(error) from error

    async def _page(self, connection: Connection, wanted: PageWanted) -> Page:
        key, task_id = wanted.after
        after = [key, UUID(bytes=task_id or _NO_ID), wanted.limit, self._page_bytes]
        if wanted.queue is None:
            # No instant lies before this one, and Postgres has no timestamp for minus infinity in seconds.
            after[0] = max(key, 0.0)
            rows = await _rows(connection, sql.DUE_PAGE, after)
        else:
            rows = await _rows(connection, sql.READY_PAGE, [wanted.queue, *after])
        tasks = to_tasks(rows)
        return Page(
            wanted.queue, tasks, _last(tasks, wanted.queue is None), complete=self._is_last(tasks, wanted.limit)
        )

    def _is_last(self, tasks: Sequence[Task], limit: int) -> bool:
        """A page cut by its bytes is shorter than asked for and yet not the last; the next, empty one then is."""
        cut = sum(len(task.payload) + _VALUE_HEADER for task in tasks) >= self._page_bytes
        return len(tasks) < limit and not cut

    async def make_partitions(self) -> None:
        try:
            connection = await self._open()
            await connection.execute(sql.MAKE_PARTITIONS, [PARTITIONS_AHEAD])
        except psycopg.Error as error:
            raise await self._unavailable(error) from error

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await open_writer(self._conninfo)
        return self._connection

    async def _unavailable(self, error: psycopg.Error) -> Exception:
        """A failed statement leaves a transaction behind, a failed connection nothing: both start afresh."""
        await self.close()
        return StorageUnavailable(f"{type(error).__name__}: {error}".split("\n")[0]) if is_away(error) else error


async def _rows(connection: Connection, text: Any, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    return await (await connection.execute(text, parameters)).fetchall()


def _ids(rows: Iterable[Sequence[Any]]) -> set[TaskId]:
    return {row[0].bytes for row in rows}


def _integer(value: object) -> int:
    return int(str(value))


def _last(tasks: Sequence[Task], due: bool) -> tuple[float, TaskId] | None:
    if not tasks:
        return None
    return (tasks[-1].ready_at if due else tasks[-1].rank, tasks[-1].id)
