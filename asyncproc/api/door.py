"""What the endpoints of one replica share."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from asyncproc.actors.gateway import Gateway
from asyncproc.api.admission import Admission
from asyncproc.clock import TaskIds
from asyncproc.config import ApiSettings
from asyncproc.registry import Registry
from asyncproc.storage.inspector import Inspector


@dataclass(frozen=True, slots=True)
class Door:
    gateway: Gateway
    inspector: Inspector
    registry: Registry
    limits: ApiSettings
    ids: TaskIds
    admission: Admission
    queues: frozenset[str]
    """Those that the configuration or a task type names."""
    caretakers: "tuple[asyncio.Task[None], ...]" = ()
    """Kept because the loop alone would forget a running task."""


async def _door(request: Request) -> Door:
    # A coroutine: FastAPI runs plain functions in a thread, which cost more than all the rest of an enqueue.
    return cast(Door, request.app.state.door)


TheDoor = Annotated[Door, Depends(_door)]
