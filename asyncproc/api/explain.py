"""Why one task is not running yet."""

from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic import ConfigDict
from pydantic.config import JsonDict
from pydantic_core import to_json

from asyncproc.api.door import Door, TheDoor
from asyncproc.api.operations import instant
from asyncproc.api.tasks import ERRORS, task_id_of, unknown
from asyncproc.clock import id_text
from asyncproc.core.explain import Look, starts_at
from asyncproc.core.states import State
from asyncproc.storage import survey
from asyncproc.wire import Body, ErrorBody

router = APIRouter(tags=["tasks"])

PARENTS_SHOWN: Final = 20

_EXPLANATION: Final[JsonDict] = {
    "id": "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7",
    "status": "queued",
    "queue": "mail",
    "position": 4_712,
    "estimated": False,
    "ahead": [{"queue": "mail", "taskType": "SendEmail", "count": 4_711}],
    "reasons": [
        {
            "kind": "rate",
            "name": "smtp",
            "text": "the rate limit smtp is free in 3.2 s",
            "until": "2026-11-25T09:00:03Z",
        }
    ],
    "pool": "default",
    "slots": 4,
    "share": 0.5,
    "estimatedStart": "2026-11-25T09:03:00Z",
}


class Ahead(Body):
    queue: str
    task_type: str
    count: int


class Reason(Body):
    """`kind` is `instant`, `pause`, `queue`, `type`, `key`, `rate`, `pool` (it has no worker), `unknown` (its workers
    lack the type), `busy`, `affinity`, `suspect` or `tasks` (one for each of the first 20 that it waits for); `name`
    says which one, `until` when that ends, where it is known."""

    kind: str
    name: str
    text: str
    until: datetime | None


class Explanation(Body):
    """Where a task stands among those of its queue, and what keeps it from starting now.

    `position` is 1 for the best rank of its queue, null where it does not wait for a worker. Without a reason it is its
    turn once those ahead were given out.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXPLANATION]})

    id: str
    status: State
    queue: str
    position: int | None
    estimated: bool
    """To count what is ahead took too long: it is what Postgres expects."""
    ahead: list[Ahead]
    reasons: list[Reason]
    pool: str | None
    slots: int | None
    """Tasks that the workers of its pool run at once."""
    share: float | None
    """Its queue's part of them while all queues have work."""
    estimated_start: datetime | None
    """If what is ahead takes as long as it lately did; null where that cannot be told."""


@router.get("/task/{task_id}/explain", response_model=Explanation, responses={**ERRORS, 404: {"model": ErrorBody}})
async def explain(task_id: str, door: TheDoor) -> Response:
    """Why a task is not running: its position, what is ahead, what blocks it, and when it may start."""
    known = task_id_of(task_id)
    with door.admission.reads.hold():
        look = await door.gateway.explain(known)
        if look is not None:
            return _json(await _explained(task_id, look, door))
        record = await door.inspector.task(known)
    if record is None:
        raise unknown(task_id)
    return _json(_body(task_id, record.state, record.queue))


async def _explained(task_id: str, look: Look, door: Door) -> dict[str, Any]:
    ahead, estimated = look.ahead, False
    if look.state is State.QUEUED and not look.is_whole:
        ahead, estimated = await _ahead_on_disk(look, door)
    body = _body(task_id, look.state, look.queue)
    if look.state is State.QUEUED:
        body["position"] = 1 + sum(ahead.values())
    reasons = [
        {"kind": reason.kind, "name": reason.name, "text": reason.text, "until": instant(reason.until)}
        for reason in look.reasons
    ]
    if look.state is State.BLOCKED:
        reasons = await _parents(look, door) or reasons
    return body | {
        "estimated": estimated,
        "ahead": [{"queue": look.queue, "taskType": name, "count": number} for name, number in sorted(ahead.items())],
        "reasons": reasons,
        "pool": look.pool,
        "slots": look.slots,
        "share": round(look.share, 3),
        "estimatedStart": instant(starts_at(look, ahead)),
    }


async def _parents(look: Look, door: Door) -> list[dict[str, Any]]:
    found = await survey.waits_for(door.inspector, look.place[1], PARENTS_SHOWN)
    return [
        {"kind": "tasks", "name": id_text(parent), "text": f"it waits for task {id_text(parent)}, which is {state}"}
        | {"until": None}
        for parent, state in found
    ]


async def _ahead_on_disk(look: Look, door: Door) -> tuple[dict[str, int], bool]:
    rank, task_id = look.place
    counted = await survey.ahead(door.inspector, look.queue, rank, task_id)
    if counted is None:
        number = await survey.estimate_ahead(door.inspector, look.queue, rank, task_id)
        return {look.type: number}, True
    ahead = {name: number - look.running_ahead.get(name, 0) for name, number in counted.items()}
    return {name: number for name, number in ahead.items() if number > 0}, False


def _body(task_id: str, state: State, queue: str) -> dict[str, Any]:
    return {
        "id": task_id,
        "status": state,
        "queue": queue,
        "position": None,
        "estimated": False,
        "ahead": [],
        "reasons": [],
        "pool": None,
        "slots": None,
        "share": None,
        "estimatedStart": None,
    }


def _json(body: dict[str, Any]) -> Response:
    return Response(to_json(body), media_type="application/json")
