"""What the endpoints of one replica share."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from asyncproc.actors.gateway import Gateway
from asyncproc.api.admission import Admission
from asyncproc.api.figures import Counting
from asyncproc.api.overflow import Cancelling
from asyncproc.api.stored import StoredCopy
from asyncproc.api.watch import Watch
from asyncproc.clock import TaskIds
from asyncproc.config import ApiSettings, Settings
from asyncproc.errors import TooSlow
from asyncproc.registry import Registry
from asyncproc.storage.inspector import Inspector


@dataclass(frozen=True, slots=True)
class Door:
    gateway: Gateway
    inspector: Inspector
    registry: Registry
    settings: Settings
    ids: TaskIds
    admission: Admission
    stored: StoredCopy
    counting: Counting
    watch: Watch
    cancelling: Cancelling
    caretakers: "tuple[asyncio.Task[None], ...]" = ()
    """Kept because the loop alone would forget a running task."""

    @property
    def limits(self) -> ApiSettings:
        return self.settings.api

    def refuse_late(self) -> None:
        """Raises `TooSlow` where requests to enqueue wait for half of the time that they have: another one would only
        find that out at its end, its outcome unknown."""
        waited_s = self.gateway.waited_s()
        if waited_s > self.limits.enqueue_timeout / 2:
            raise TooSlow(waited_s)

    async def close(self) -> None:
        self.stored.stop()
        await self.inspector.close()


async def _door(request: Request) -> Door:
    # A coroutine: FastAPI runs plain functions in a thread, which cost more than all the rest of an enqueue.
    return cast(Door, request.app.state.door)


TheDoor = Annotated[Door, Depends(_door)]
