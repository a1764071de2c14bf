"""Queues: their settings, pauses, drains and purges."""

from asyncio import sleep
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from asyncproc.api import pauses
from asyncproc.api.door import Door, TheDoor
from asyncproc.api.figures import Figures
from asyncproc.api.queue_bodies import (
    NewQueueBody,
    PauseAnswer,
    PauseBody,
    PurgeAnswer,
    PurgeBody,
    QueueBody,
    QueueList,
    QueueView,
)
from asyncproc.api.small_body import described, parse, without_name
from asyncproc.changes import Delete, Drain, Mode, Put
from asyncproc.clock import wall_now
from asyncproc.config import DEFAULT
from asyncproc.core.states import State
from asyncproc.core.task import QUEUE_NAME
from asyncproc.precedence import pool_of, queue_settings, shown
from asyncproc.rules import QueueRuleSettings, Stored, to_document
from asyncproc.wire import ErrorBody, instant

router = APIRouter(tags=["queues"])

READ_ERRORS: Final[dict[int | str, dict[str, Any]]] = {status: {"model": ErrorBody} for status in (400, 404, 429, 503)}
CHANGE_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody} for status in (400, 404, 408, 409, 413, 429, 503)
}
VIEWS_AT_ONCE: Final = 20
"""Queues that are shown before other requests get their turn: about a millisecond."""
COUNT_AT_ONCE: Final = 10_000
"""Tasks of one queue that are counted for an answer; of more the figures are as old as they say."""

QueueName = Annotated[str, Path(pattern=QUEUE_NAME, examples=["mail"])]


@router.get("/queues", response_model=QueueList, responses=READ_ERRORS)
async def list_queues(door: TheDoor) -> Response:
    """All queues, each with what holds for it, who said so, and how it stands."""
    with door.admission.reads.hold():
        stored = await door.stored.refresh()
        figures = await door.counting.figures()
    names = named(door, stored) | (figures.queues.keys() if figures is not None else set())
    views: list[dict[str, Any]] = []
    for name in sorted(names):
        views.append(_view(door, stored, name, figures))
        if not len(views) % VIEWS_AT_ONCE:
            await sleep(0)
    return _json({"queues": views, "paused": pauses.shown(stored, "all", "")})


@router.post(
    "/queues",
    status_code=201,
    response_model=QueueView,
    responses=CHANGE_ERRORS,
    openapi_extra=described(NewQueueBody),
)
async def create_queue(request: Request, door: TheDoor) -> Response:
    """Create a queue with settings of its own. A queue is also there as soon as a task names it."""
    body = await parse(request, NewQueueBody, door.admission.changes)
    return await _put(door, body.name, without_name(body, QueueRuleSettings), "create", 201)


@router.get("/queues/{name}", response_model=QueueView, responses=READ_ERRORS)
async def get_queue(name: QueueName, door: TheDoor) -> Response:
    """One queue: what holds for it, who said so, and how it stands."""
    with door.admission.reads.hold():
        return _json(await _look(door, name))


@router.patch("/queues/{name}", response_model=QueueView, responses=CHANGE_ERRORS, openapi_extra=described(QueueBody))
async def change_queue(name: QueueName, request: Request, door: TheDoor) -> Response:
    """Change some settings; null takes one back. Answered once they are in force."""
    body = await parse(request, QueueBody, door.admission.changes)
    await _must_exist(door, name)
    return await _put(door, name, body, "merge")


@router.put("/queues/{name}", response_model=QueueView, responses=CHANGE_ERRORS, openapi_extra=described(QueueBody))
async def replace_queue(name: QueueName, request: Request, door: TheDoor) -> Response:
    """Set all settings: what the body does not name goes back to what the configuration or the code says."""
    return await _put(door, name, await parse(request, QueueBody, door.admission.changes), "replace")


@router.delete("/queues/{name}", status_code=204, response_model=None, responses=CHANGE_ERRORS)
async def delete_queue(name: QueueName, door: TheDoor) -> Response:
    """Forget its stored settings, pause and drain. 409 while tasks wait or run there."""
    await _must_exist(door, name)
    with door.admission.changes.hold():
        if not await _is_empty(door, name):
            raise HTTPException(409, f"queue {name} is not empty: drain it, or purge what waits there, and try again")
        await door.gateway.change(Delete("queue", name))
        await door.stored.refresh()
    return Response(status_code=204)


@router.post(
    "/queues/{name}/pause",
    response_model=QueueView,
    responses=CHANGE_ERRORS,
    openapi_extra=described(PauseBody, required=False),
)
async def pause_queue(name: QueueName, request: Request, door: TheDoor) -> Response:
    """Nothing more of this queue begins until it is resumed, or until the end that is given; what runs goes on."""
    await _must_exist(door, name)
    await pauses.pause(request, door, "queue", name)
    return _json(await _look(door, name))


@router.post("/queues/{name}/resume", response_model=QueueView, responses=CHANGE_ERRORS)
async def resume_queue(name: QueueName, door: TheDoor) -> Response:
    """End a pause or a drain: tasks are taken and begin again."""
    await _must_exist(door, name)
    await pauses.resume(door, "queue", name)
    return _json(await _look(door, name))


@router.post("/queues/{name}/drain", response_model=QueueView, responses=CHANGE_ERRORS)
async def drain_queue(name: QueueName, door: TheDoor) -> Response:
    """Take no new tasks into this queue: enqueueing them is answered with 409. What is there runs out, and `empty` of
    the queue says when that is done. Tasks that a running task enqueues, and failed ones that are retried, go in still.
    """
    await _must_exist(door, name)
    with door.admission.changes.hold():
        await door.gateway.change(Drain(name))
    return _json(await _look(door, name))


@router.post(
    "/queues/{name}/purge",
    response_model=PurgeAnswer,
    responses=CHANGE_ERRORS,
    openapi_extra=described(PurgeBody, required=False),
)
async def purge_queue(name: QueueName, request: Request, door: TheDoor) -> Response:
    """Cancel all that waits in this queue now; what runs goes on. With `dryRun` only say how many that would be."""
    body = await parse(request, PurgeBody, door.admission.changes)
    await _must_exist(door, name)
    with door.admission.changes.hold():
        if body.dry_run:
            tasks, is_done = await door.inspector.waiting(name), True
        else:
            tasks, is_done = await door.gateway.purge(name)
    return _json({"queue": name, "dryRun": body.dry_run, "tasks": tasks, "done": is_done})


@router.post(
    "/pause",
    response_model=PauseAnswer,
    responses=CHANGE_ERRORS,
    openapi_extra=described(PauseBody, required=False),
)
async def pause_all(request: Request, door: TheDoor) -> Response:
    """Nothing more begins, whatever its queue and type; what runs goes on, and new tasks are taken."""
    await pauses.pause(request, door, "all", "")
    return _json({"paused": pauses.shown(await door.stored.refresh(), "all", "")})


@router.post("/resume", response_model=PauseAnswer, responses=CHANGE_ERRORS)
async def resume_all(door: TheDoor) -> Response:
    """End the pause of everything; queues and types that are paused by themselves stay so."""
    await pauses.resume(door, "all", "")
    return _json({"paused": pauses.shown(await door.stored.refresh(), "all", "")})


# ---- what they share


async def _put(door: Door, name: str, rules: QueueRuleSettings, mode: Mode, status: int = 200) -> Response:
    with door.admission.changes.hold():
        await door.gateway.change(Put("queue", name, to_document(rules), mode))
    return _json(await _look(door, name), status)


async def _look(door: Door, name: str) -> dict[str, Any]:
    stored = await door.stored.refresh()
    now = wall_now()
    exact = await door.inspector.some_counts(name, COUNT_AT_ONCE)
    figures = await door.counting.figures()
    if not exact and name not in named(door, stored) and name not in (figures.queues if figures is not None else ()):
        raise _unknown(door, stored, name)
    if exact is not None:
        failed = figures.queues.get(name, {}).get(State.FAILED, 0) if figures is not None else 0
        figures = Figures(now, {name: exact | ({State.FAILED: failed} if failed else {})})
    purge = await door.inspector.purge(name)
    purging = None if purge is None else {"askedAt": instant(purge.asked_at), "cancelled": purge.cancelled}
    return _view(door, stored, name, figures) | {"purging": purging}


def _view(door: Door, stored: Stored, name: str, figures: Figures | None) -> dict[str, Any]:
    counts: Mapping[State, int] | None = None if figures is None else figures.queues.get(name, {})
    since = stored.draining.get(name)
    return {
        "name": name,
        "settings": shown(queue_settings(door.settings, stored, name), QueueRuleSettings),
        "paused": pauses.shown(stored, "queue", name),
        "drainingSince": None if since is None else instant(since),
        "empty": None if counts is None else not counts.keys() - {State.FAILED},
        "counts": counts,
        "countedAt": None if figures is None else instant(figures.counted_at),
        "purging": None,
    }


def named(door: Door, stored: Stored) -> set[str]:
    """Queues that somebody has named, whether or not they have tasks."""
    paused = {pause.name for pause in stored.pauses if pause.scope == "queue"}
    types = (door.registry.get(name).queue for name in door.registry.names())
    return {
        DEFAULT,
        *door.settings.queues,
        *pool_of(door.settings, stored),
        *types,
        *stored.queues,
        *stored.draining,
        *paused,
    }


async def _must_exist(door: Door, name: str) -> None:
    """Raises `HTTPException`: a typing error must not make a queue."""
    stored = await door.stored.refresh()
    if name not in named(door, stored) and await _is_empty(door, name):
        raise _unknown(door, stored, name)


async def _is_empty(door: Door, name: str) -> bool:
    return await door.inspector.some_counts(name, 1) == {}


def _unknown(door: Door, stored: Stored, name: str) -> HTTPException:
    known = sorted(named(door, stored))
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return HTTPException(
        404, f"there is no queue {name}: known are {', '.join(known[:20])}{more}; POST /queues creates one"
    )


def _json(value: object, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")
