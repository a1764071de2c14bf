"""Where queues keep what ended for times of their own, what is over goes row by row out of partitions that stay.

An index that knew the queue would cost every task; so each page is looked at, once for all that is over by then.
"""

from collections.abc import Mapping
from math import inf
from typing import Final, NamedTuple

from psycopg.sql import SQL, Identifier

from asyncproc.core.states import State
from asyncproc.storage.arrays import texts
from asyncproc.storage.connection import Connection
from asyncproc.storage.statements import partitions

PAGES_AT_ONCE: Final = 200
"""Some thousand tasks: whoever wants to revive one of them waits for so many."""


class Kept(NamedTuple):
    """For how many seconds finished tasks are kept at least; what is not named is kept for ever."""

    by_state: Mapping[State, float]
    by_queue: Mapping[str, Mapping[State, float]] = {}
    """Of the queues that differ, and only the states in which they do."""

    def shortest(self) -> dict[State, float]:
        """Before that nothing of a state is over; only states of which something ever is."""
        found = dict(self.by_state)
        for kept in self.by_queue.values():
            for state, seconds in kept.items():
                found[state] = min(seconds, found.get(state, inf))
        return found

    def longest(self, state: State) -> float:
        """After that all of it is over."""
        own = (kept[state] for kept in self.by_queue.values() if state in kept)
        return max([self.by_state.get(state, inf), *own])

    def over(self, state: State, age_s: float) -> "Over":
        """What of a state is over where it ended so long ago."""
        is_over = self.by_state.get(state, inf) <= age_s
        own = {queue: kept[state] <= age_s for queue, kept in self.by_queue.items() if state in kept}
        return Over(tuple(sorted(queue for queue, its in own.items() if its != is_over)), not is_over)


class Over(NamedTuple):
    queues: tuple[str, ...]
    these: bool
    """Tasks of these queues, or those of all others."""

    def __bool__(self) -> bool:
        return bool(self.queues) or not self.these


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
