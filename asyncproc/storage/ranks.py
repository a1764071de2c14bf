"""Ranks on disk follow the configuration: where a queue's aging changed, they are computed anew at takeover."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from asyncproc.storage.arrays import texts
from asyncproc.storage.connection import Connection
from asyncproc.storage.statements import pages

_ALL_OTHERS: Final = ""


async def rank_anew(
    connection: Connection,
    fence: Callable[[Connection], Awaitable[None]],
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
