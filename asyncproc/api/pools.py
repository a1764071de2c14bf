"""Pools: what their workers are, how many there are, and why."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from asyncproc.actors.places import Standing
from asyncproc.api.door import Door, TheDoor
from asyncproc.api.pool_bodies import NewPoolBody, PoolBody, PoolList, PoolView
from asyncproc.api.queues import CHANGE_ERRORS, READ_ERRORS
from asyncproc.api.small_body import described, parse, without_name
from asyncproc.changes import Delete, Mode, Put
from asyncproc.config import DEFAULT
from asyncproc.core.origin import Origin
from asyncproc.core.shape import MAX_SHAPE, asked_by, base_and_shape
from asyncproc.core.task import QUEUE_NAME
from asyncproc.pool_precedence import pool_settings
from asyncproc.pool_settings import PoolRuleSettings, PoolSettings, WorkerRange
from asyncproc.precedence import Won, shown
from asyncproc.rules import Stored, to_document
from asyncproc.wire import instant

router = APIRouter(tags=["pools"])

AnyName = Annotated[str, Path(max_length=101 + MAX_SHAPE, examples=["films"])]
PoolName = Annotated[str, Path(pattern=QUEUE_NAME, examples=["films"])]
_NOT_YET: Final = Standing("", 0, 0, 0, 0, "it is not known yet", 0.0, "", PoolSettings())


@router.get("/pools", response_model=PoolList, responses=READ_ERRORS)
async def list_pools(door: TheDoor) -> Response:
    """All pools, each with what holds for it, and its workers: present, wanted, and why."""
    with door.admission.reads.hold():
        stored, standings = await door.stored.refresh(), await _standings(door)
    return _json(
        {"pools": [_view(door, stored, name, standings) for name in sorted({*_named(door, stored), *standings})]}
    )


@router.post(
    "/pools",
    status_code=201,
    response_model=PoolView,
    responses=CHANGE_ERRORS,
    openapi_extra=described(NewPoolBody),
)
async def create_pool(request: Request, door: TheDoor) -> Response:
    """Create a pool. Its workers start at once, or with its first tasks where `workers.min` is 0."""
    body = await parse(request, NewPoolBody, door.admission.changes)
    stored = await door.stored.refresh()
    if body.name in _named(door, stored) and body.name not in stored.pools:
        raise HTTPException(409, f"pool {body.name} is there by the configuration: PATCH changes it")
    return await _put(door, body.name, without_name(body, PoolRuleSettings), "create", 201)


@router.get("/pools/{name}", response_model=PoolView, responses=READ_ERRORS)
async def get_pool(name: AnyName, door: TheDoor) -> Response:
    """One pool: what holds for it, who said so, its workers, and the last decisions on how many there should be."""
    with door.admission.reads.hold():
        return _json(await _look(door, name))


@router.patch("/pools/{name}", response_model=PoolView, responses=CHANGE_ERRORS, openapi_extra=described(PoolBody))
async def change_pool(name: PoolName, request: Request, door: TheDoor) -> Response:
    """Change some settings; null takes one back. Workers that are made otherwise now are replaced one by one, and
    finish what they run."""
    body = await parse(request, PoolBody, door.admission.changes)
    await _must_exist(door, name)
    return await _put(door, name, body, "merge")


@router.put("/pools/{name}", response_model=PoolView, responses=CHANGE_ERRORS, openapi_extra=described(PoolBody))
async def replace_pool(name: PoolName, request: Request, door: TheDoor) -> Response:
    """Set all settings: what the body does not name goes back to what the configuration or the code says."""
    return await _put(door, name, await parse(request, PoolBody, door.admission.changes), "replace")


@router.delete("/pools/{name}", status_code=204, response_model=None, responses=CHANGE_ERRORS)
async def delete_pool(name: PoolName, door: TheDoor) -> Response:
    """Forget its stored settings; where the configuration does not have it either its workers finish what they run and
    end, and its queues go to the default pool. 409 where a queue's settings name it."""
    await _must_exist(door, name)
    with door.admission.changes.hold():
        await door.gateway.change(Delete("pool", name))
        await door.stored.refresh()
    return Response(status_code=204)


async def _put(door: Door, name: str, rules: PoolRuleSettings, mode: Mode, status: int = 200) -> Response:
    with door.admission.changes.hold():
        await door.gateway.change(Put("pool", name, to_document(rules), mode))
    return _json(await _look(door, name), status)


async def _look(door: Door, name: str) -> dict[str, Any]:
    stored, standings = await door.stored.refresh(), await _standings(door)
    if name not in standings and name not in _named(door, stored):
        raise _unknown(door, stored, name)
    return _view(door, stored, name, standings)


async def _standings(door: Door) -> dict[str, Standing]:
    return {standing.pool: standing for standing in await door.gateway.pools()}


def _view(door: Door, stored: Stored, name: str, standings: dict[str, Standing]) -> dict[str, Any]:
    standing = standings.get(name, _NOT_YET)
    _, shape = base_and_shape(name)
    won = _of_shape(standing.kind) if shape else pool_settings(door.settings, stored, name)
    return {
        "name": name,
        "settings": shown(won, PoolRuleSettings),
        "shape": asked_by(shape) if shape else None,
        "workers": {
            "present": standing.present,
            "starting": standing.starting,
            "leaving": standing.leaving,
            "wanted": standing.wanted,
            "reason": standing.reason,
            "since": instant(standing.since or None),
        },
        "problem": standing.problem or None,
        "decisions": [
            {"at": instant(at), "workers": workers, "reason": reason}
            for at, workers, reason in reversed(standing.history)
        ],
    }


def _of_shape(kind: PoolSettings) -> dict[str, Won]:
    """Of a pool that the system made by itself: from the configuration and from the pool that it belongs to."""
    workers = WorkerRange.model_construct(min=kind.least, max=kind.most)
    values: dict[str, Any] = {
        "workers": workers,
        "target_wait": kind.target_wait_s,
        "idle_after": kind.idle_after_s,
        "handlers": None,
    }
    names = PoolRuleSettings.model_fields.keys() - values.keys()
    values |= {name: getattr(kind, name) for name in PoolRuleSettings.model_fields if name in names}
    values["queues"] = list(kind.queues)
    return {name: Won(values[name], Origin.CONFIG) for name in PoolRuleSettings.model_fields}


def _named(door: Door, stored: Stored) -> set[str]:
    return {DEFAULT, *door.settings.pools, *stored.pools}


async def _must_exist(door: Door, name: str) -> None:
    """Raises `HTTPException`: a typing error must not make a pool."""
    stored = await door.stored.refresh()
    if name not in _named(door, stored):
        raise _unknown(door, stored, name)


def _unknown(door: Door, stored: Stored, name: str) -> HTTPException:
    known = ", ".join(sorted(_named(door, stored))[:20])
    return HTTPException(404, f"there is no pool {name[:100]}: known are {known}; POST /pools creates one")


def _json(value: object, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")
