"""Pauses as the API takes and shows them."""

from typing import Any, Literal

from starlette.requests import Request

from asyncproc.api.body import refuse
from asyncproc.api.door import Door
from asyncproc.api.queue_bodies import PauseBody
from asyncproc.api.small_body import parse
from asyncproc.changes import PauseFor, Resume
from asyncproc.clock import wall_now
from asyncproc.core.duration import parse_duration
from asyncproc.core.steering import Pause
from asyncproc.rules import Stored
from asyncproc.wire import Problem, instant

Scope = Literal["all", "queue", "type"]


async def pause(request: Request, door: Door, scope: Scope, name: str) -> None:
    """Returns once nothing more begins. Raises `BodyRefused` and what the gateway does."""
    until, for_s, body = await asked(request, door)
    with door.admission.changes.hold():
        await door.gateway.change(PauseFor(Pause(scope, name, until, body.reason, body.by), for_s))


async def asked(request: Request, door: Door) -> tuple[float, float, PauseBody]:
    """When it is to end, as an instant or as seconds from now on, 0 for none, and all that was said. Raises
    `BodyRefused`."""
    body = await parse(request, PauseBody, door.admission.changes)
    until = 0.0 if body.until is None else body.until.timestamp()
    if body.until is not None and until <= wall_now():
        raise refuse([Problem(index=None, field="until", message="is over already")])
    return until, 0.0 if body.for_ is None else parse_duration(body.for_), body


async def resume(door: Door, scope: Scope, name: str) -> None:
    """Returns once tasks begin again. Raises what the gateway does."""
    with door.admission.changes.hold():
        await door.gateway.change(Resume(scope, name))


def shown(stored: Stored, scope: Scope, name: str) -> dict[str, Any] | None:
    """`PauseView`; None where there is no pause, or it is over."""
    for found in stored.pauses:
        if (found.scope, found.name) == (scope, name) and not 0 < found.until <= wall_now():
            until = instant(found.until) if found.until else None
            return {"since": instant(found.since), "until": until, "reason": found.reason, "by": found.by}
    return None
