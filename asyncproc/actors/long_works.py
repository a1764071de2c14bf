"""What follows from a change and takes many commits: ranks computed anew, queues emptied. One at a time, in parts.

A part is one short commit, so that the cycles in between stay as they are. What a reign leaves unfinished the next one
takes up: by the note of the queue's aging, and by the row of the purge.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

from asyncproc.actors.inbox import Inbox
from asyncproc.core.decision import PurgeReply
from asyncproc.core.events import Purged, QueueReranked
from asyncproc.core.task import TaskId
from asyncproc.errors import StorageUnavailable
from asyncproc.storage import ranks, steering
from asyncproc.storage.connection import Connection, Fence
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import FIRST_NOT_READY, FIRST_READY, Inspector
from asyncproc.storage.ranks import MIXED_S
from asyncproc.storage.steering import Purge

log = logging.getLogger(__name__)

ROWS_A_PART: Final = 2_000
PURGE_WAIT_S: Final = 5.0
"""How long a purge is waited for; a longer one goes on after its answer."""
PURGED: Final = "its queue was purged"
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0

P = ParamSpec("P")
T = TypeVar("T")
Work: TypeAlias = Callable[[], Awaitable[None]]
Row: TypeAlias = tuple[Any, int, float]
"""A task's place in an order that ends with its id, its lease, the instant of its making."""
Read: TypeAlias = Callable[[str, Any, int], Awaitable[Sequence[Row]]]
"""Asked with a queue, a place to start behind and a number of rows."""


class _Emptying:
    """A queue that is purged."""

    __slots__ = ("done", "purge")

    def __init__(self, purge: Purge) -> None:
        self.purge = purge
        self.done = asyncio.Event()


class LongWorks:
    def __init__(self, storage: Storage, inspector: Inspector, inbox: Inbox) -> None:
        self._storage = storage
        self._inspector = inspector
        self._inbox = inbox
        self._waiting: asyncio.Queue[Work] = asyncio.Queue()
        """At most two for each queue: those that wait already are not entered again."""
        self._agings: dict[str, float] = {}
        """Of queues whose ranks are to be computed anew."""
        self._emptying: dict[str, _Emptying] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            work = await self._waiting.get()
            await work()

    def rerank(self, queue: str, aging_s: float) -> None:
        """Compute the ranks on disk anew; the core goes by this aging already."""
        if queue not in self._agings:
            self._waiting.put_nowait(lambda: self._rerank(queue))
        self._agings[queue] = aging_s

    async def purge(self, queue: str, now: float) -> tuple[int, bool]:
        """Cancel all that waits there now; answers soon how many are cancelled, and whether that is all.

        Raises `StorageUnavailable`: nothing is purged then, or nobody knows.
        """
        await self._storage.between(steering.begin_purge, queue, now)
        emptying = self.resume(Purge(queue, now))
        with suppress(TimeoutError):
            await asyncio.wait_for(emptying.done.wait(), PURGE_WAIT_S)
        return emptying.purge.cancelled, emptying.done.is_set()

    def resume(self, purge: Purge) -> _Emptying:
        """Go on with a purge that the table knows of."""
        emptying = self._emptying.get(purge.queue)
        if emptying is None:
            emptying = self._emptying[purge.queue] = _Emptying(purge)
            self._waiting.put_nowait(lambda: self._empty(purge.queue))
        else:
            emptying.purge = emptying.purge._replace(asked_at=purge.asked_at)
        return emptying

    # ---- ranks

    async def _rerank(self, queue: str) -> None:
        aging_s = self._agings.pop(queue)
        await _insist(self._storage.between, ranks.note_aging, queue, MIXED_S)
        number = 0
        async for rows in self._rows(self._inspector.ready, queue, FIRST_READY):
            ids = [place[-1] for place, _, _ in rows]
            await _insist(self._storage.between, ranks.rank_some_anew, queue, aging_s, ids)
            number += len(ids)
        await _insist(self._storage.between, self._ranked, queue, aging_s)
        log.info("queue %s: %d ranks are computed anew", queue, number)

    async def _ranked(self, connection: Connection, fence: Fence, queue: str, aging_s: float) -> None:
        await ranks.note_aging(connection, fence, queue, aging_s)
        lanes = await ranks.lanes(connection, queue)
        # Still in this turn, and before all else: the next page that is read must be known to be of the new ranks.
        self._inbox.post_first(QueueReranked(queue, lanes))

    # ---- purges

    async def _empty(self, queue: str) -> None:
        emptying = self._emptying[queue]
        while True:
            purge = emptying.purge
            # Once more where something was found: what is moved meanwhile may have been overlooked.
            if await self._cancel(emptying):
                continue
            await _insist(self._storage.between, steering.end_purge, purge)
            if emptying.purge.asked_at == purge.asked_at:
                break
        del self._emptying[queue]
        emptying.done.set()
        log.info("queue %s is purged: %d tasks are cancelled", queue, emptying.purge.cancelled)

    async def _cancel(self, emptying: _Emptying) -> int:
        """Go over all that waits once; returns how many were cancelled."""
        purge, cancelled = emptying.purge, 0
        for read, first in ((self._inspector.ready, FIRST_READY), (self._inspector.not_ready, FIRST_NOT_READY)):
            async for rows in self._rows(read, purge.queue, first):
                old = [(place[-1], lease) for place, lease, made_at in rows if made_at <= purge.asked_at]
                if old:
                    number = await self._cancel_some(purge.queue, old)
                    emptying.purge = emptying.purge._replace(cancelled=emptying.purge.cancelled + number)
                    cancelled += number
        return cancelled

    async def _cancel_some(self, queue: str, rows: list[tuple[TaskId, int]]) -> int:
        reply = await self._inbox.ask(lambda ticket: Purged(ticket, queue, rows, PURGED))
        number = reply.cancelled if isinstance(reply, PurgeReply) else 0
        await _insist(self._storage.between, steering.count_purged, queue, number)
        return number

    async def _rows(self, read: Read, queue: str, after: Any) -> AsyncIterator[Sequence[Row]]:
        while rows := await _insist(read, queue, after, ROWS_A_PART):
            yield rows
            after = rows[-1][0]


async def _insist(do: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Try again until Postgres is there: all of these may be repeated."""
    wait_s = _FIRST_RETRY_S
    while True:
        try:
            return await do(*args, **kwargs)
        except StorageUnavailable as error:
            log.warning("%s", error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LAST_RETRY_S)
