"""How many tasks each queue has, by state: counted seldom, however often it is asked for."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from asyncproc.clock import monotonic, wall_now
from asyncproc.core.states import State
from asyncproc.errors import StorageUnavailable
from asyncproc.storage.inspector import Inspector

log = logging.getLogger(__name__)

FRESH_S: Final = 1.0
"""Figures are not counted again for this long after a count, and for ten times as long as it took."""
WAIT_S: Final = 2.0
"""An answer waits no longer than this for a count that is under way: it tells the figures of the one before."""


class Figures(NamedTuple):
    counted_at: float
    queues: Mapping[str, Mapping[State, int]]


class Counting:
    """One count at a time in each replica, and only where somebody asks."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._under_way: asyncio.Task[None] | None = None
        self._known: Figures | None = None
        self._next_at = 0.0

    async def figures(self) -> Figures | None:
        """The newest there are, None where no count has come to its end."""
        if self._under_way is None and monotonic() >= self._next_at:
            self._under_way = asyncio.get_running_loop().create_task(self._count())
        if self._under_way is not None:
            await asyncio.wait([self._under_way], timeout=WAIT_S)
        return self._known

    async def _count(self) -> None:
        since, at = monotonic(), wall_now()
        try:
            self._known = Figures(at, await self._inspector.counts())
        except StorageUnavailable as error:
            log.warning("tasks are not counted: %s", error)
        finally:
            took_s = monotonic() - since
            self._next_at = since + took_s + max(FRESH_S, 10 * took_s)
            self._under_way = None
