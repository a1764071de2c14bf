"""Task types: limits, and what their tasks are enqueued with."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from asyncproc.api import pauses
from asyncproc.api.door import Door, TheDoor
from asyncproc.api.queue_bodies import PauseBody, TypeBody, TypeList, TypeView
from asyncproc.api.queues import CHANGE_ERRORS, READ_ERRORS
from asyncproc.api.small_body import described, parse
from asyncproc.changes import Delete, Mode, Put
from asyncproc.core.shape import asked_by
from asyncproc.core.task import MAX_TYPE_NAME
from asyncproc.errors import QueueUnavailable
from asyncproc.precedence import shown, type_settings
from asyncproc.registry import UnknownTaskType
from asyncproc.rules import Stored, TypeRuleSettings, to_document

router = APIRouter(tags=["types"])
ANSWER_S: Final = 2.0
"""The list does not wait longer for the QueueActor, which alone knows what workers know."""

TypeName = Annotated[str, Path(max_length=MAX_TYPE_NAME, examples=["SendEmail"])]


@router.get("/types", response_model=TypeList, responses=READ_ERRORS)
async def list_types(door: TheDoor) -> Response:
    """All task types, each with what holds for its tasks and who said so."""
    with door.admission.reads.hold():
        stored = await door.stored.refresh()
        try:
            unknown = (await door.gateway.health(ANSWER_S)).unknown_types
        except QueueUnavailable:
            unknown = ()
    return _json({"types": [_view(door, stored, name) for name in door.registry.names()], "unknown": unknown})


@router.get("/types/{name}", response_model=TypeView, responses=READ_ERRORS)
async def get_type(name: TypeName, door: TheDoor) -> Response:
    """One task type: what holds for its tasks, and who said so."""
    _must_exist(door, name)
    with door.admission.reads.hold():
        return await _look(door, name)


@router.patch("/types/{name}", response_model=TypeView, responses=CHANGE_ERRORS, openapi_extra=described(TypeBody))
async def change_type(name: TypeName, request: Request, door: TheDoor) -> Response:
    """Change some settings; null takes one back. Answered once they are in force."""
    return await _put(name, request, door, "merge")


@router.put("/types/{name}", response_model=TypeView, responses=CHANGE_ERRORS, openapi_extra=described(TypeBody))
async def replace_type(name: TypeName, request: Request, door: TheDoor) -> Response:
    """Set all settings: what the body does not name goes back to what the configuration or the code says."""
    return await _put(name, request, door, "replace")


@router.delete("/types/{name}", status_code=204, response_model=None, responses=CHANGE_ERRORS)
async def reset_type(name: TypeName, door: TheDoor) -> Response:
    """Forget its stored settings and its pause."""
    _must_exist(door, name)
    with door.admission.changes.hold():
        await door.gateway.change(Delete("type", name))
        await door.stored.refresh()
    return Response(status_code=204)


@router.post(
    "/types/{name}/pause",
    response_model=TypeView,
    responses=CHANGE_ERRORS,
    openapi_extra=described(PauseBody, required=False),
)
async def pause_type(name: TypeName, request: Request, door: TheDoor) -> Response:
    """No more tasks of this type begin, whatever their queue; what runs goes on."""
    _must_exist(door, name)
    await pauses.pause(request, door, "type", name)
    return await _look(door, name)


@router.post("/types/{name}/resume", response_model=TypeView, responses=CHANGE_ERRORS)
async def resume_type(name: TypeName, door: TheDoor) -> Response:
    """End a pause."""
    _must_exist(door, name)
    await pauses.resume(door, "type", name)
    return await _look(door, name)


async def _put(name: str, request: Request, door: Door, mode: Mode) -> Response:
    _must_exist(door, name)
    body = await parse(request, TypeBody, door.admission.changes)
    with door.admission.changes.hold():
        await door.gateway.change(Put("type", name, to_document(body), mode))
    return await _look(door, name)


async def _look(door: Door, name: str) -> Response:
    return _json(_view(door, await door.stored.refresh(), name))


def _view(door: Door, stored: Stored, name: str) -> dict[str, Any]:
    found = door.registry.get(name)
    settings = type_settings(door.settings, stored, name, found.queue, found.own)
    return {
        "name": name,
        "queue": found.queue,
        "resources": asked_by(found.resources) if found.resources else None,
        "settings": shown(settings, TypeRuleSettings),
        "paused": pauses.shown(stored, "type", name),
    }


def _must_exist(door: Door, name: str) -> None:
    try:
        door.registry.get(name)
    except UnknownTaskType as error:
        raise HTTPException(404, str(error)) from None


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")
