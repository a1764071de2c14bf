"""Counts those who wait where a bound may be reached."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from asyncproc.core.crowd import Crowd, Place
from asyncproc.storage.arrays import ints, texts
from asyncproc.storage.connection import Connection, Fence
from asyncproc.storage.statements import overflow


async def count(connection: Connection, _: Fence, crowds: Mapping[Place, Crowd]) -> None:
    """Fill in those that are not counted yet."""
    unknown = [(place, crowd) for place, crowd in crowds.items() if crowd.waiting is None]
    for (queue, key), crowd in unknown:
        if not key:
            await _count_queue(connection, queue, crowd)
    keys = [each for each in unknown if each[0][1]]
    if keys:
        await _count_keys(connection, keys)


async def _count_queue(connection: Connection, queue: str, crowd: Crowd) -> None:
    # Where more wait than can go at once nobody needs to know how many.
    most = crowd.limit + crowd.to_read + 1
    ((waiting,),) = await _rows(connection, overflow.COUNT, [queue, most, queue, most])
    crowd.waiting = waiting
    if crowd.to_read and waiting + crowd.coming > crowd.limit:
        rows = await _rows(connection, overflow.OLDEST, [queue, queue, crowd.to_read])
        crowd.oldest.extend((task_id.bytes, lease, key) for task_id, lease, key in rows)


async def _count_keys(connection: Connection, keys: Sequence[tuple[Place, Crowd]]) -> None:
    names = [texts(queue for (queue, _), _ in keys), texts(key for (_, key), _ in keys)]
    for number, waiting in await _rows(connection, overflow.COUNT_KEYS, names):
        keys[number - 1][1].waiting = waiting
    full = [each for each in keys if each[1].to_read and (each[1].waiting or 0) + each[1].coming > each[1].limit]
    if not full:
        return
    names = [texts(queue for (queue, _), _ in full), texts(key for (_, key), _ in full)]
    rows = await _rows(connection, overflow.OLDEST_OF_KEYS, [*names, ints(crowd.to_read for _, crowd in full)])
    for number, task_id, lease, key in sorted(rows):
        full[number - 1][1].oldest.append((task_id.bytes, lease, key))


async def _rows(connection: Connection, text: LiteralString, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(text, parameters)).fetchall()
