"""Reads for people: one task, lists, figures. They never touch what the cycle writes with."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import psycopg

from asyncproc.core.decision import Key
from asyncproc.core.record import Glimpse, TaskFilter, TaskRecord
from asyncproc.core.schedule import TickRecord
from asyncproc.core.settings import LARGE_BYTES
from asyncproc.core.states import State
from asyncproc.core.task import Task, TaskId
from asyncproc.core.unique import Holder, Wanted
from asyncproc.errors import StorageUnavailable
from asyncproc.parents import Chunk
from asyncproc.plans import StoredSchedule
from asyncproc.rules import Stored
from asyncproc.storage import schedules
from asyncproc.storage.arrays import byteas, floats, texts, uuids
from asyncproc.storage.connection import first_line, reader_pool
from asyncproc.storage.rows import not_ended_before, to_tasks
from asyncproc.storage.statements import dependents, idempotency, moves, pages, reads, requests, steering, unique
from asyncproc.storage.statements import schedules as statements
from asyncproc.storage.steering import Purge, to_stored

_LAST_ID: Final = b"\xff" * 16
ReadyKey: TypeAlias = tuple[str, str, str, str, float, TaskId]
"""A place among the ready tasks of a queue: type, fairness key, concurrency key, rank, id."""
COUNT_WITHIN_S: Final = 60.0
PARENTS_AT_ONCE: Final = 1_000
PARENTS_BYTES: Final = 2 * 1024 * 1024
FIRST_READY: Final[ReadyKey] = ("", "", "", "", float("-inf"), b"\x00" * 16)
FIRST_NOT_READY: Final[Key] = (0.0, b"\x00" * 16)


class Inspector:
    """A small pool of read-only connections. Every read may raise `StorageUnavailable`."""

    def __init__(self, conninfo: str, max_connections: int = 4) -> None:
        self._pool = reader_pool(conninfo, max_connections)

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def ping(self) -> None:
        await self._read("SELECT 1", {})

    async def task(self, task_id: TaskId) -> TaskRecord | None:
        uuid = UUID(bytes=task_id)
        rows = await self._read(reads.RECORD, [uuid, uuid, not_ended_before([task_id])])
        return _record(rows[0]) if rows else None

    async def tasks(self, narrowed: TaskFilter, limit: int, before: TaskId | None) -> list[TaskRecord]:
        """Newest first: ids are ordered by the time of their making. `before` is the last id of the page before."""
        if any("\x00" in asked for asked in narrowed.texts()):
            return []  # no text in Postgres has a NUL, and no parameter may have one
        page = {"limit": limit, "before": UUID(bytes=before or _LAST_ID)}
        rows = await self._read(reads.RECORDS, filter_parameters(narrowed) | page)
        return [_record(row) for row in rows]

    async def finished_task(self, task_id: TaskId) -> Task | None:
        """A finished task as the core takes it, to be run again."""
        rows = await self._read(pages.FINISHED_TASK, [LARGE_BYTES, UUID(bytes=task_id), not_ended_before([task_id])])
        return to_tasks(rows)[0] if rows else None

    async def live_task(self, task_id: TaskId) -> Task | None:
        """A task that is not finished, as the core takes it."""
        rows = await self._read(reads.LIVE_TASK, [LARGE_BYTES, UUID(bytes=task_id)])
        return to_tasks(rows)[0] if rows else None

    async def overdue(self, now: float, most: int) -> list[Task]:
        """Tasks that wait though an instant of theirs is past."""
        return to_tasks(await self._read(reads.OVERDUE, [LARGE_BYTES, now, most, now, most]))

    async def glimpses(self, ids: Sequence[TaskId]) -> dict[TaskId, Glimpse]:
        """How those of the tasks stand that there are."""
        rows = await self._read(reads.GLIMPSES, [uuids(ids), uuids(ids), not_ended_before(ids)])
        return {row[0].bytes: Glimpse(State(row[1]), row[2], row[3], row[4]) for row in rows}

    async def parents(self, task_id: TaskId, start: int) -> Chunk:
        """Some of the parents of a task that has not ended, from number `start` on, and how they ended."""
        asked = [start + 1, start + PARENTS_AT_ONCE, UUID(bytes=task_id)]
        own = await self._read(dependents.PARENTS_OF, asked)
        if not own or not own[0][0]:
            return (own[0][1] if own else 0), None, []
        ids = [parent.bytes for parent in own[0][0]]
        columns = [uuids(ids), uuids(ids), not_ended_before(ids), PARENTS_BYTES]
        rows = await self._read(dependents.PARENTS, columns)
        found = [(row[0].bytes, row[1], None if row[2] is None else row[2].encode(), row[3]) for row in rows]
        return own[0][1], None if start else own[0][2], found

    async def existing(self, ids: Sequence[TaskId]) -> set[TaskId]:
        """Those of the ids that have a row, finished or not."""
        rows = await self._read(moves.EXISTING, [uuids(ids), uuids(ids), not_ended_before(ids)])
        return {row[0].bytes for row in rows}

    async def answers(self, asked: Sequence[tuple[str, bytes]], now: float) -> dict[str, bytes | None]:
        """Of idempotency keys, asked with the hashes of their bodies: the answers of those in use, None where it was
        another body."""
        keys, hashes = zip(*asked, strict=True)
        rows = await self._read(idempotency.ANSWERS, [texts(keys), byteas(hashes), now])
        return {row[0]: None if row[1] is None else row[1].encode() for row in rows}

    async def holders(self, wanted: Sequence[Wanted]) -> dict[Wanted, Holder]:
        """Who holds what is looked for; what nobody holds is left out."""
        types, keys, states, instants = zip(*wanted, strict=True)
        columns = [texts(types), texts(keys), texts(map(",".join, states)), floats(instants)]
        rows = await self._read(unique.HOLDERS, columns)
        return {wanted[row[0] - 1]: Holder(row[1].bytes, State(row[2]), row[3], row[4]) for row in rows}

    async def live_tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Task]:
        """Those that are not finished, as the core takes them."""
        return {task.id: task for task in to_tasks(await self._read(unique.LIVE_TASKS, [LARGE_BYTES, uuids(ids)]))}

    async def figures(self) -> list[tuple[str, str, str, int, float | None, float | None]]:
        """Rows of state, queue, type, number, mean run time in seconds, longest wait in seconds."""
        return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in await self._read(reads.FIGURES, {})]

    async def counts(self) -> dict[str, dict[State, int]]:
        """Tasks of each queue by state, of the finished ones only the failed. Takes seconds for millions."""
        found: dict[str, dict[State, int]] = {}
        for queue, state, number in await self._count(reads.COUNTS, {}):
            found.setdefault(queue, {})[State(state)] = number
        return found

    async def some_counts(self, queue: str, most: int) -> dict[State, int] | None:
        """Tasks of the queue that are not finished, by state; None where they are more than can be counted at once."""
        rows = await self._read(reads.SOME_COUNTS, [queue, most, queue, most])
        found = {State(state): int(number) for state, number in rows}
        return found if sum(found.values()) < most else None

    async def waiting(self, queue: str) -> int:
        """How many tasks wait there."""
        return int((await self._count(reads.WAITING, [queue]))[0][0])

    async def purge(self, queue: str) -> Purge | None:
        """The one that is under way there."""
        rows = await self._read(steering.PURGES, {})
        return next((Purge(*row) for row in rows if row[0] == queue), None)

    async def stored(self) -> Stored:
        """What operators set at run time."""
        return to_stored(await self._read(steering.STORED, {}))

    async def steering_version(self) -> int:
        """Of what operators set: another number says that something changed."""
        return int((await self._read(steering.VERSION, {}))[0][0])

    async def schedules(self) -> dict[str, StoredSchedule]:
        """What operators said of schedules."""
        return schedules.to_stored(await self._read(statements.STORED, {}))

    async def schedule(self, name: str) -> StoredSchedule | None:
        """The same of one; None where nothing was said."""
        return schedules.to_stored(await self._read(statements.ONE, [name])).get(name)

    async def last_ticks(self, names: Sequence[str], most: int) -> dict[str, list[TickRecord]]:
        """The last ticks of some schedules, so many of each that has any, the newest first."""
        found: dict[str, list[TickRecord]] = {}
        for name, task, due_at, kind, outcome, decided_at in await self._read(
            statements.LAST_TICKS, [texts(names), most]
        ):
            found.setdefault(name, []).append(TickRecord(task.bytes, due_at, kind, outcome, decided_at))
        return found

    async def ready(self, queue: str, after: ReadyKey, limit: int) -> list[tuple[ReadyKey, int, float]]:
        """Ready tasks of a queue behind `after`: place, lease, instant of making."""
        *lane_and_rank, task_id = after
        rows = await self._read(steering.READY, [queue, *lane_and_rank, UUID(bytes=task_id), limit])
        return [((*row[:5], row[5].bytes), row[6], row[7]) for row in rows]

    async def not_ready(self, queue: str, after: Key, limit: int) -> list[tuple[Key, int, float]]:
        """The same of tasks that wait for something else than a worker."""
        rows = await self._read(steering.NOT_READY, [queue, after[0], UUID(bytes=after[1]), limit])
        return [((row[0], row[1].bytes), row[2], row[3]) for row in rows]

    async def requested(self, most: int, most_bytes: int) -> list[tuple[Any, ...]]:
        """Committed requests for tasks, as `storage.requests` takes them."""
        return await self._read(requests.WAITING, [most, most_bytes])

    async def within(
        self, seconds: float, text: Any, parameters: Sequence[object] | Mapping[str, object]
    ) -> list[tuple[Any, ...]] | None:
        """What a read finds that may take so long at most; None where it takes longer."""
        try:
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(
                    "SELECT set_config('statement_timeout', %s, true)", [f"{max(1, round(seconds * 1000))}"]
                )
                return await (await connection.execute(text, parameters)).fetchall()
        except psycopg.errors.QueryCanceled:
            return None
        except psycopg.Error as error:
            raise StorageUnavailable(first_line(error)) from error

    async def _count(self, text: Any, parameters: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        rows = await self.within(COUNT_WITHIN_S, text, parameters)
        if rows is None:
            raise StorageUnavailable(f"to count tasks took longer than {COUNT_WITHIN_S:g} s")
        return rows

    async def _read(self, text: Any, parameters: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        try:
            async with self._pool.connection() as connection:
                return await (await connection.execute(text, parameters)).fetchall()
        except psycopg.Error as error:
            raise StorageUnavailable(first_line(error)) from error


def filter_parameters(narrowed: TaskFilter) -> dict[str, object]:
    """What `statements.filters` refers to."""
    asked: dict[str, object] = {
        name: _several(getattr(narrowed, name))
        for name in (
            "state", "type", "queue", "priority", "created_by", "fingerprint", "concurrency_key", "fairness_key",
        )
    }  # fmt: skip
    ids = _several(narrowed.id)
    asked["id"] = None if ids is None else [UUID(bytes=task_id) for task_id in ids]
    asked["payload"] = narrowed.payload
    return {**asked, "created_after": narrowed.created_after, "created_before": narrowed.created_before}


def _several(asked: Any) -> list[Any] | None:
    """Postgres' drivers take a list for an array, and a tuple for something else."""
    if asked is None:
        return None
    return list(asked) if isinstance(asked, tuple) else [asked]


def _record(row: Sequence[Any]) -> TaskRecord:
    (id_, type_, queue, state, priority, attempt, most, created_at, ready_at, started_at, created_by, backoff_s,
     timeout_s, soft_timeout_s, worker, error, concurrency_key, fairness_key, start_by, deadline,
     origins, affinity_key, resources, unique_key, depends_on, depends_on_count, on_parent_failure, errors, payload,
     finished_at, result, progress, *notes) = row  # fmt: skip
    log, checkpoint = (_bytes(note) for note in notes or (None, None))
    return TaskRecord(
        id_.bytes, type_, queue, State(state), priority, attempt, most, created_at, ready_at, started_at, created_by,
        backoff_s, timeout_s, soft_timeout_s, worker, error, concurrency_key, fairness_key, start_by, deadline,
        origins, tuple(parent.bytes for parent in depends_on or ()), depends_on_count, on_parent_failure, resources,
        errors.encode(), payload.encode(), finished_at, _bytes(result), unique_key, _bytes(progress), log, checkpoint,
        affinity_key,
    )  # fmt: skip


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
