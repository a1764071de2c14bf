"""Rate limits: token buckets that task types draw from."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from asyncproc.api.door import Door, TheDoor
from asyncproc.api.queue_bodies import RateBody, RateList, RateView
from asyncproc.api.queues import CHANGE_ERRORS, READ_ERRORS
from asyncproc.api.small_body import described, parse
from asyncproc.changes import Delete, Put
from asyncproc.core.origin import Origin
from asyncproc.core.task import QUEUE_NAME
from asyncproc.precedence import draws, rate_settings
from asyncproc.rules import RateLimitSettings, Stored, to_document

router = APIRouter(tags=["rate limits"])

RateName = Annotated[str, Path(pattern=QUEUE_NAME, examples=["smtp"])]


@router.get("/rate-limits", response_model=RateList, responses=READ_ERRORS)
async def list_rates(door: TheDoor) -> Response:
    """All rate limits, and who draws from them."""
    with door.admission.reads.hold():
        stored = await door.stored.refresh()
    rates = sorted(rate_settings(door.settings, stored).items())
    return _json({"rateLimits": [_view(door, stored, name, *found) for name, found in rates]})


@router.get("/rate-limits/{name}", response_model=RateView, responses=READ_ERRORS)
async def get_rate(name: RateName, door: TheDoor) -> Response:
    """One rate limit, and who draws from it."""
    with door.admission.reads.hold():
        return await _look(door, name)


@router.put("/rate-limits/{name}", response_model=RateView, responses=CHANGE_ERRORS, openapi_extra=described(RateBody))
async def set_rate(name: RateName, request: Request, door: TheDoor) -> Response:
    """Create or change a rate limit. Answered once it is in force; what was drawn before stays drawn."""
    body = await parse(request, RateBody, door.admission.changes)
    with door.admission.changes.hold():
        await door.gateway.change(Put("rate", name, to_document(body), "replace"))
    return await _look(door, name)


@router.delete("/rate-limits/{name}", status_code=204, response_model=None, responses=CHANGE_ERRORS)
async def delete_rate(name: RateName, door: TheDoor) -> Response:
    """Forget it: where the configuration has one of this name, that one holds again. 409 while types draw from it."""
    _must_exist(door, await door.stored.refresh(), name)
    with door.admission.changes.hold():
        await door.gateway.change(Delete("rate", name))
        await door.stored.refresh()
    return Response(status_code=204)


async def _look(door: Door, name: str) -> Response:
    stored = await door.stored.refresh()
    return _json(_view(door, stored, name, *_must_exist(door, stored, name)))


def _must_exist(door: Door, stored: Stored, name: str) -> tuple[RateLimitSettings, Origin]:
    rates = rate_settings(door.settings, stored)
    if name not in rates:
        known = ", ".join(sorted(rates)[:20]) or "none"
        raise HTTPException(404, f"there is no rate limit {name}: known are {known}; PUT creates one")
    return rates[name]


def _view(door: Door, stored: Stored, name: str, rate: RateLimitSettings, origin: Origin) -> dict[str, Any]:
    drawn_by = {of: units[name] for of, units in draws(door.settings, stored).items() if name in units}
    return {"name": name, "rate": rate.rate, "burst": rate.burst_units, "from": origin, "drawnBy": drawn_by}


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")
