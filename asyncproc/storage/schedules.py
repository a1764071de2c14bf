"""Schedules as they were said at run time, and how far all of them are. Written by the reign alone."""

from collections.abc import Sequence
from typing import Any

from asyncproc.changes import DeleteSchedule, PauseSchedule, PutSchedule, ResumeSchedule, ScheduleChange
from asyncproc.core.schedule import Position, Tick
from asyncproc.core.task import TaskId
from asyncproc.plans import StoredSchedule, pause_document
from asyncproc.storage.arrays import uuids
from asyncproc.storage.connection import Connection, Fence
from asyncproc.storage.statements import schedules


async def change(
    connection: Connection, fence: Fence, asked: ScheduleChange, now: float
) -> tuple[bool, StoredSchedule | None]:
    """Carry it out in a transaction of its own; whether there was anything to change, and what is stored then."""
    async with connection.transaction():
        await fence(connection)
        match asked:
            case PutSchedule(name, document, 0):
                cursor = await connection.execute(schedules.CREATE, [name, document.decode()])
            case PutSchedule(name, document, version):
                cursor = await connection.execute(schedules.REPLACE, [document.decode(), name, version])
            case DeleteSchedule(name):
                cursor = await connection.execute(schedules.DELETE, [name])
            case PauseSchedule(name, pause, for_s):
                cursor = await connection.execute(schedules.PAUSE, [name, pause_document(pause, for_s, now).decode()])
            case ResumeSchedule(name):
                cursor = await connection.execute(schedules.PAUSE, [name, None])
        row = await (await connection.execute(schedules.ONE, [asked.name])).fetchone()
    return cursor.rowcount > 0, None if row is None else to_stored([row])[asked.name]


async def stored(connection: Connection, _: Fence) -> dict[str, StoredSchedule]:
    return to_stored(await (await connection.execute(schedules.STORED)).fetchall())


async def decided(connection: Connection, _: Fence, ids: Sequence[TaskId]) -> set[TaskId]:
    """Those of the ticks that are decided already."""
    rows: list[tuple[Any, ...]] = await (await connection.execute(schedules.DECIDED, [uuids(ids)])).fetchall()
    return {row[0].bytes for row in rows}


async def found(connection: Connection) -> tuple[dict[str, Position], list[tuple[str, Tick]]]:
    """How far the schedules are, and the ticks that wait."""
    rows: list[tuple[Any, ...]] = await (await connection.execute(schedules.POSITIONS)).fetchall()
    positions = {
        name: Position(stamp, at, None if task is None else task.bytes, is_live)
        for name, stamp, at, task, is_live in rows
    }
    waiting: list[tuple[Any, ...]] = await (await connection.execute(schedules.WAITING)).fetchall()
    return positions, [(name, Tick(task.bytes, due_at, kind)) for name, task, due_at, kind in waiting]


def to_stored(rows: Sequence[tuple[Any, ...]]) -> dict[str, StoredSchedule]:
    """Rows of `statements.schedules.STORED`."""
    return {name: StoredSchedule.of(name, version, settings, pause) for name, version, settings, pause in rows}
