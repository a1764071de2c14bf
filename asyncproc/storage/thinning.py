"""Where queues keep what ended for times of their own, what is over goes row by row out of partitions that stay.

An index that knew the queue would cost every task; so each page is looked at, once for all that is over by then.
"""

from typing import Final

from psycopg.sql import SQL, Identifier

from asyncproc.core.retention import Over
from asyncproc.storage.arrays import texts
from asyncproc.storage.connection import Connection
from asyncproc.storage.statements import partitions

PAGES_AT_ONCE: Final = 200
"""Some thousand tasks: whoever wants to revive one of them waits for so many."""


class Thinning:
    """How far it is, for as long as the reign lasts: the next one looks at all pages again, and finds nothing."""

    def __init__(self) -> None:
        self._next_page: dict[str, tuple[Over, int]] = {}

    async def thin(self, connection: Connection, partition: str, over: Over) -> int:
        """Delete what is over of a partition to which nothing is added any more; returns how many tasks. Where it is
        ended before its time it goes on from there."""
        known, page = self._next_page.get(partition, (over, 0))
        if known != over:
            page = 0
        row = await (await connection.execute(partitions.PAGES, [partition])).fetchone()
        pages = int(str(row[0])) if row else 0
        delete, deleted = SQL(partitions.THIN).format(partition=Identifier(partition)), 0
        while page < pages:
            following = min(page + PAGES_AT_ONCE, pages)
            bounds = [f"({page},0)", f"({following},0)"]
            deleted += (await connection.execute(delete, [*bounds, texts(over.queues), over.these])).rowcount
            page = following
            self._next_page[partition] = (over, page)
        return deleted

    def forget(self, partition: str) -> None:
        """It is gone."""
        self._next_page.pop(partition, None)
