"""A replica's copy of what operators set at run time: enqueueing goes by it and never asks the database for it."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from asyncproc.errors import StorageUnavailable
from asyncproc.rules import Stored
from asyncproc.storage.inspector import Inspector

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""How old the copy gets at most, while Postgres answers."""


class StoredCopy:
    def __init__(self, inspector: Inspector, obey: Callable[[Stored], None]) -> None:
        """`obey` is told of each new version."""
        self._inspector = inspector
        self._obey = obey
        self._following: asyncio.Task[None] | None = None
        self.current = Stored(version=-1)

    async def known(self) -> None:
        """Returns at once, but for the first time in the life of the replica. Raises `StorageUnavailable`."""
        if self.current.version < 0:
            await self.refresh()

    async def refresh(self) -> Stored:
        """The newest version. Raises `StorageUnavailable`."""
        if await self._inspector.steering_version() != self.current.version:
            found = await self._inspector.stored()
            # Two of these may be under way, and the older answer come last.
            if found.version > self.current.version:
                self.current = found
                self._obey(found)
        return self.current

    def follow(self) -> None:
        """Keep the copy fresh until `stop`."""
        self._following = asyncio.get_running_loop().create_task(self._follow())
        self._following.add_done_callback(_end_process)

    def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                await self.refresh()
            except StorageUnavailable:
                log.debug("settings stay as they are: Postgres is away")
            await asyncio.sleep(POLL_S)


def _end_process(task: "asyncio.Task[None]") -> None:
    """A replica that no longer hears of changes would go by old settings for ever: Serve starts another one."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    log.critical("the settings can no longer be followed: %s", error, exc_info=error)
    os._exit(1)
