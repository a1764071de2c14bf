"""One task as server-sent events: how it stands, and every change until its end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from asyncproc.api.door import Door, TheDoor
from asyncproc.api.tasks import ERRORS, task_id_of, unknown
from asyncproc.core.record import Glimpse
from asyncproc.core.states import FINAL
from asyncproc.core.task import TaskId
from asyncproc.errors import AsyncprocError
from asyncproc.wire import ErrorBody, view

router = APIRouter(tags=["tasks"])

HEARTBEAT_S: Final = 15.0
"""A comment this often: proxies take a silent connection for a dead one."""
_CONTENT: Final = "text/event-stream"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get(
    "/task/{task_id}/events",
    response_class=StreamingResponse,
    responses={
        **ERRORS,
        200: {"content": {_CONTENT: {"schema": {"type": "string"}}}, "description": "events named `task`"},
        404: {"model": ErrorBody},
    },
)
async def events(task_id: str, door: TheDoor, last_event_id: str | None = Header(default=None)) -> StreamingResponse:
    """The task in full, at once and whenever its status changes or it notes something (progress, log, checkpoint; once
    a second at most), as server-sent events; the stream ends with the task.
    Who reconnects with `Last-Event-ID` is told again only what is different from then."""
    known = task_id_of(task_id)
    with door.admission.watches.hold():  # refused before anything is answered
        if not await door.inspector.glimpses([known]):
            raise unknown(task_id)
    return StreamingResponse(_stream(known, door, last_event_id), media_type=_CONTENT, headers=_HEADERS)


async def _stream(task_id: TaskId, door: Door, last_event_id: str | None) -> AsyncIterator[bytes]:
    try:
        with door.admission.watches.hold():
            changes = door.watch.changes(task_id)
            async with aclosing(changes):
                async for glimpse in _with_heartbeats(changes):
                    if glimpse is None:
                        yield b": still there\n\n"
                        continue
                    if _event_id(glimpse) != last_event_id:
                        record = await door.inspector.task(task_id)
                        if record is None:
                            return
                        yield b"event: task\nid: %s\ndata: %s\n\n" % (_event_id(glimpse).encode(), view(record))
                    if glimpse.state in FINAL:
                        return
    except AsyncprocError as error:
        # The status line is long gone: whoever listens connects again, and is told properly.
        yield b": %s\n\n" % str(error).encode()


async def _with_heartbeats(changes: AsyncGenerator[Glimpse | None, None]) -> AsyncIterator[Glimpse | None]:
    """None where nothing changed for a while; the end where the task is gone."""
    following = asyncio.ensure_future(anext(changes, None))
    try:
        while True:
            done, _ = await asyncio.wait((following,), timeout=HEARTBEAT_S)
            if not done:
                yield None
                continue
            glimpse = following.result()
            if glimpse is None:
                return
            yield glimpse
            following = asyncio.ensure_future(anext(changes, None))
    finally:
        following.cancel()
        await asyncio.wait((following,))


def _event_id(glimpse: Glimpse) -> str:
    return f"{glimpse.state}.{glimpse.attempt}.{glimpse.lease}" + (f".{glimpse.noted}" if glimpse.noted else "")
