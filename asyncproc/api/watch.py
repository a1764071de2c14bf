"""Tasks that somebody waits for: looked at together, often at first and then less so.

Whatever the number of those that wait, one query a look answers all of them, and none is made while nobody waits.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final

from asyncproc.core.record import Glimpse
from asyncproc.core.states import FINAL
from asyncproc.core.task import TaskId
from asyncproc.errors import StorageUnavailable
from asyncproc.storage.inspector import Inspector

log = logging.getLogger(__name__)

FIRST_LOOK_S: Final = 0.03
SLOWEST_LOOK_S: Final = 0.5
_SLOWER: Final = 1.5


@dataclass(slots=True, eq=False)
class _Watched:
    watchers: int = 0
    seen: Glimpse | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once, and replaced: each of the watchers waits for the one it has found."""


class Watch:
    """One a replica. Its look-out runs while somebody waits."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._watched: dict[TaskId, _Watched] = {}
        self._look_s = FIRST_LOOK_S
        self._look_out: asyncio.Task[None] | None = None

    async def until_ended(self, task_id: TaskId, seconds: float) -> None:
        """Returns once the task has ended, or the time is over, or there is no such task."""
        try:
            async with asyncio.timeout(seconds):
                async with aclosing(self.changes(task_id)) as changes:
                    async for glimpse in changes:
                        if glimpse is None or glimpse.state in FINAL:
                            return
        except TimeoutError:
            return

    async def changes(self, task_id: TaskId) -> AsyncGenerator[Glimpse | None, None]:
        """How the task stands, at first and then whenever that is different; None where there is no such task. Raises
        `StorageUnavailable`."""
        with self._watching(task_id) as watched:
            before = await self._glimpse(task_id)
            if watched.seen is None:
                watched.seen = before
            yield before
            while True:
                changed = watched.changed
                if watched.seen == before:
                    await changed.wait()
                else:
                    before = watched.seen
                    yield before

    async def _glimpse(self, task_id: TaskId) -> Glimpse | None:
        return (await self._inspector.glimpses([task_id])).get(task_id)

    @contextmanager
    def _watching(self, task_id: TaskId) -> Iterator[_Watched]:
        watched = self._watched.setdefault(task_id, _Watched())
        watched.watchers += 1
        self._look_s = FIRST_LOOK_S
        if self._look_out is None or self._look_out.done():
            self._look_out = asyncio.get_running_loop().create_task(self._look())
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[task_id]

    async def _look(self) -> None:
        is_away = False
        while self._watched:
            await asyncio.sleep(self._look_s)
            self._look_s = min(SLOWEST_LOOK_S, self._look_s * _SLOWER)
            try:
                glimpses = await self._inspector.glimpses(list(self._watched))
            except StorageUnavailable as error:
                if not is_away:
                    log.warning("those who wait for tasks go on waiting: %s", error)
                is_away = True
                continue
            is_away = False
            for task_id, watched in self._watched.items():
                glimpse = glimpses.get(task_id)
                if glimpse != watched.seen:
                    if not _is_note(watched.seen, glimpse):
                        self._look_s = FIRST_LOOK_S
                    watched.seen = glimpse
                    watched.changed.set()
                    watched.changed = asyncio.Event()


def _is_note(before: Glimpse | None, now: Glimpse | None) -> bool:
    """The task noted something, and nothing else: a second will pass before the next one, and often many."""
    return before is not None and now is not None and before._replace(noted=now.noted) == now
