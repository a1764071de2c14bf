"""How full the places are that new tasks come to, where they have a bound: read before the step that decides."""

import asyncio
from collections.abc import Container, Sequence

from asyncproc.actors.answers import expect
from asyncproc.actors.commits import AWAY_AFTER_S, FIRST_RETRY_S, LAST_RETRY_S, Commits
from asyncproc.clock import monotonic
from asyncproc.core.crowd import Crowd, Place
from asyncproc.core.decision import EnqueueReply, Reply
from asyncproc.core.events import Event, Occupied
from asyncproc.core.overflow import crowds
from asyncproc.core.step import Core
from asyncproc.core.task import NewTask, TaskId
from asyncproc.errors import QueueFull, StorageUnavailable
from asyncproc.storage import overflow
from asyncproc.storage.cycle import Storage


class Counting:
    def __init__(self, storage: Storage, commits: Commits) -> None:
        self._storage = storage
        self._commits = commits

    async def told(self, core: Core, events: list[Event], now: float) -> list[Event]:
        """The events of the next step, with all that it must know of bounds. Costs nothing where no queue has one."""
        found = crowds(core, events, now)
        if not found:
            return events
        if any(crowd.waiting is None for crowd in found.values()):
            await self._count(found)
        return [Occupied(found), *events]

    async def _count(self, found: dict[Place, Crowd]) -> None:
        since, wait_s, was_away = monotonic(), FIRST_RETRY_S, self._commits.away
        while True:
            for crowd in found.values():
                crowd.oldest.clear()
            try:
                await self._storage.between(overflow.count, found)
            except StorageUnavailable as error:
                if monotonic() - since > AWAY_AFTER_S:
                    self._commits.now_away(error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LAST_RETRY_S)
            else:
                self._commits.away = was_away  # what follows need not be a commit
                return


def without(
    known: Container[TaskId], tasks: list[NewTask], sizes: Sequence[int]
) -> tuple[list[NewTask], Sequence[int]]:
    """What of these requests is not there yet."""
    kept, start, left = [task for task in tasks if task[0] not in known], 0, []
    for size in sizes:
        left.append(sum(task[0] not in known for task in tasks[start : start + size]))
        start += size
    return kept, left


def admitted(reply: Reply) -> EnqueueReply:
    """Raises `QueueFull` where some of the requests found no room; the others are committed."""
    enqueued = expect(reply, EnqueueReply)
    if enqueued.full:
        raise QueueFull(tuple(enqueued.full))
    return enqueued
