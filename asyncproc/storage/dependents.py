"""What a commit does for tasks that wait for tasks: new ones are tied to their parents, and those whose parents ended
are released, or end with them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncCursor

from asyncproc.core.decision import Depends, Writes
from asyncproc.core.events import Released
from asyncproc.core.rank import micros_until
from asyncproc.core.task import TaskId
from asyncproc.storage.arrays import PgArray, floats, texts, uuids
from asyncproc.storage.connection import Connection
from asyncproc.storage.rows import not_ended_before, to_tasks
from asyncproc.storage.statements import dependents

FAILURE: Final = "ParentFailed"
"""What its error says of a task that failed without having run."""
MOST: Final = 10_000
"""Children of ended parents that one commit sees to. The others are seen to by the next ones: until then their edges
stand, which a new reign finds."""


@dataclass(slots=True)
class Family:
    """What of a batch is about parents and children."""

    depends: list[Depends]
    parents: list[TaskId]
    may_fail: bool
    """One of the parents may have ended without success."""
    gone: list[TaskId]
    """Tasks that may have ended while they waited."""
    now: float


def family_of(writes: Writes, now: float) -> Family | None:
    """None where nobody waits for anybody."""
    if not writes.parents:
        return None
    gone = [row[0] for rows in (writes.cancelled, writes.overdue, writes.overflown) for row in rows]
    # All that is known of the others is that somebody asked: new children, what was left over, a new reign.
    may_fail = len(writes.parents) > len(writes.succeeded)
    return Family(writes.depends, writes.parents, may_fail, gone, micros_until(now))


@dataclass(slots=True)
class Settled:
    cursor: AsyncCursor[tuple[object, ...]] | None
    """Of `release`; None where all is left to the next commit."""
    parents: list[TaskId]
    """Those of the batch, and those that ended with them."""


async def settle(connection: Connection, family: Family) -> Settled:
    """In the transaction, once its new rows are there."""
    parents = family.parents
    if family.depends:
        await _tie(connection, family.depends)
    if family.may_fail:
        asked: list[Any] = [uuids(parents), not_ended_before(parents), MOST]
        rows = await (await connection.execute(dependents.AFFECTED, asked)).fetchall()
        parents = [*parents, *await _end(connection, rows, family.now)]
        if len(rows) >= MOST:
            # None may be released as long as it is not known whether it has to end.
            return Settled(None, parents)
    asked = [uuids(parents), uuids(family.gone), family.now, MOST]
    return Settled(await connection.execute(dependents.RELEASE, asked), parents)


async def _end(connection: Connection, affected: Sequence[Sequence[object]], now: float) -> list[TaskId]:
    """End those who have a parent that did not succeed; returns them."""
    parent_of = {child.bytes: parent for child, parent in affected if isinstance(child, UUID)}
    if not parent_of:
        return []
    causes = [f"task {parent}, which it depends on, did not succeed" for parent in parent_of.values()]
    records = [json.dumps({"type": FAILURE, "message": cause, "traceback": ""}) for cause in causes]
    columns = [uuids(parent_of), texts(causes), texts(f"{FAILURE}: {cause}" for cause in causes), texts(records)]
    await connection.execute(dependents.END_WITH_PARENT, [*columns, now, now])
    await connection.execute(dependents.FREE, [uuids(parent_of)])
    return list(parent_of)


async def released(
    connection: Connection, family: Family, settled: Settled, large_bytes: int, most_bytes: int
) -> Released | None:
    """What came of it, once it is committed; None where nobody was released."""
    if settled.cursor is None:
        return Released([], None, settled.parents)
    rows = await settled.cursor.fetchall()
    ids = _ids(rows)
    owed = settled.parents if len(ids) < len(rows) else []
    if not ids:
        return Released([], None, owed) if owed else None
    reading = connection.cursor(binary=True)
    await reading.execute(dependents.RELEASED, [large_bytes, uuids(ids), most_bytes])
    tasks = to_tasks(await reading.fetchall())
    return Released(tasks, None if len(tasks) == len(ids) else family.now, owed)


async def overlooked(connection: Connection, family: Family) -> Released:
    """Nobody knows what came of it: the table is asked for all that is left to do."""
    return Released([], family.now, await _owed(connection))


async def load(connection: Connection) -> list[TaskId] | None:
    """Parents that have ended and that somebody waits for all the same; None where nobody waits for anybody."""
    (row,) = await (await connection.execute(dependents.ANY)).fetchall()
    return await _owed(connection) if row[0] else None


async def _owed(connection: Connection) -> list[TaskId]:
    async with connection.transaction():
        # The planner may read all edges here: after an unknown commit, and once a reign.
        for option in ("seqscan", "hashjoin", "sort"):
            await connection.execute(f"SET LOCAL enable_{option} = on".encode())
        return _ids(await (await connection.execute(dependents.OWED)).fetchall())


async def _tie(connection: Connection, depends: Sequence[Depends]) -> None:
    ids, parents, policies, refs, instants = zip(*depends, strict=True)
    columns: list[PgArray] = [
        uuids(ids),
        texts("{" + ",".join(parent.hex() for parent in of_one) + "}" for of_one in parents),
        texts(policies),
        texts(names or None for names in refs),
        floats(instants),
    ]
    await connection.execute(dependents.NOTE, columns)
    pairs = [(parent, child) for child, of_one, *_ in depends for parent in of_one]
    await connection.execute(dependents.CONNECT, [uuids(pair[0] for pair in pairs), uuids(pair[1] for pair in pairs)])


def _ids(rows: Iterable[Sequence[object]]) -> list[TaskId]:
    return [row[0].bytes for row in rows if isinstance(row[0], UUID)]
