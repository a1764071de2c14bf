"""Ranks on disk follow the settings: where a queue's aging changed, they are computed anew."""

from collections.abc import Mapping, Sequence
from typing import Final

from asyncproc.core.task import LaneKey, TaskId
from asyncproc.storage.arrays import texts, uuids
from asyncproc.storage.connection import Connection, Fence
from asyncproc.storage.statements import pages, steering

_ALL_OTHERS: Final = ""
MIXED_S: Final = -1.0
"""Stands for the aging of a queue while its ranks are computed anew: whoever takes over then does all of it again."""


async def rank_anew(
    connection: Connection,
    fence: Fence,
    queues: Sequence[str],
    aging_s: Mapping[str, float],
    default_aging_s: float,
) -> None:
    """Bring the rows of `queues` to the configured aging, and write down the whole of it.

    Also of queues without rows: what arrives during this reign is ranked by it, and the next reign must know.
    """
    configured = {**aging_s, _ALL_OTHERS: default_aging_s}
    rows = await (await connection.execute(pages.AGINGS)).fetchall()
    on_disk = {row[0]: row[1] for row in rows}
    for queue in queues:
        aging = aging_s.get(queue, default_aging_s)
        if on_disk.get(queue, on_disk.get(_ALL_OTHERS)) == aging:
            continue
        async with connection.transaction():
            await fence(connection)
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute(pages.RERANK, [aging, queue])
            await connection.execute(pages.SET_AGING, [queue, aging])
    if on_disk != configured:
        async with connection.transaction():
            await fence(connection)
            await connection.execute(pages.KEEP_AGINGS, [texts(configured)])
            for queue, aging in configured.items():
                await connection.execute(pages.SET_AGING, [queue, aging])


async def rank_some_anew(
    connection: Connection, fence: Fence, queue: str, aging_s: float, ids: Sequence[TaskId]
) -> None:
    """Those of these tasks that are ready. What runs keeps the rank that memory has for it."""
    async with connection.transaction():
        await fence(connection)
        await connection.execute(steering.RERANK, [aging_s, queue, uuids(ids)])


async def note_aging(connection: Connection, fence: Fence, queue: str, aging_s: float) -> None:
    """What the ranks of the queue are computed with, or `MIXED_S`."""
    async with connection.transaction():
        await fence(connection)
        await connection.execute(pages.SET_AGING, [queue, aging_s])


async def lanes(connection: Connection, queue: str) -> list[LaneKey]:
    """Of the queue, those that have rows."""
    rows = await (await connection.execute(pages.LANES_OF, [queue, queue])).fetchall()
    return [(str(row[0]), str(row[1]), str(row[2]), str(row[3])) for row in rows]
