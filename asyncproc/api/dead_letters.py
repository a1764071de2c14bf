"""Tasks that failed for good: list, group by what went wrong, run again, discard."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import to_json

from asyncproc.api.door import TheDoor
from asyncproc.api.filters import FilterBody, refuse_unknown
from asyncproc.api.lists import BAD, ListQuery, page_of
from asyncproc.api.operations import (
    REFUSALS,
    DryRunView,
    ManyBody,
    OperationView,
    Rate,
    Wanted,
    instant,
    operate,
    per_s,
)
from asyncproc.api.parsing import body_of, body_reference, parameters_of, query_of, wrong
from asyncproc.clock import id_text
from asyncproc.core.asked import NO_CHANGE, Action
from asyncproc.core.record import TaskFilter
from asyncproc.core.states import State
from asyncproc.storage import survey
from asyncproc.wire import Body, TaskList

router = APIRouter(tags=["dead letters"])

MAX_GROUPS: Final = 1_000
_ORDERED: Final[dict[int | str, dict[str, Any]]] = {**REFUSALS, 200: {"model": DryRunView}}


class GroupQuery(FilterBody):
    limit: Annotated[int, Field(ge=1, le=MAX_GROUPS)] = 100


class RedriveBody(ManyBody):
    """`filter` must not ask for a state: dead letters are failed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter": {"fingerprint": "0f3a9c51d2e4"}, "rate": "100/s"}]}
    )

    rate: Rate | None = None
    """So many tasks a time at most, such as `100/s`."""


class DiscardBody(ManyBody):
    """`filter` must not ask for a state: dead letters are failed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"filter": {"type": "SendEmail", "queue": "import"}}]})


_GROUP: Final[JsonDict] = {
    "fingerprint": "0f3a9c51d2e4",
    "taskType": "SendEmail",
    "error": "ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 1025)",
    "count": 1_204,
    "firstFailedAt": "2026-11-25T09:00:00Z",
    "lastFailedAt": "2026-11-25T09:20:00Z",
    "example": "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7",
}


class DeadGroupView(Body):
    """Failed tasks of one type with one error, whatever numbers, ids and addresses it names."""

    model_config = ConfigDict(json_schema_extra={"examples": [_GROUP]})

    fingerprint: str
    task_type: str
    error: str
    """Of the example, which is the last one."""
    count: int
    first_failed_at: datetime
    last_failed_at: datetime
    example: str


class DeadGroupList(Body):
    """The largest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"groups": [_GROUP]}]})

    groups: list[DeadGroupView]


@router.get(
    "/dead-letters", response_model=TaskList, responses=BAD, openapi_extra={"parameters": parameters_of(ListQuery)}
)
async def dead_letters(request: Request, door: TheDoor) -> Response:
    """Failed tasks that match all that is asked for, newest first."""
    asked = query_of(request, ListQuery)
    return await page_of(door, asked, _failed(asked, ""))


@router.get(
    "/dead-letters/groups",
    response_model=DeadGroupList,
    responses=BAD,
    openapi_extra={"parameters": parameters_of(GroupQuery)},
)
async def dead_letter_groups(request: Request, door: TheDoor) -> Response:
    """Failed tasks by what went wrong, the largest group first."""
    asked = query_of(request, GroupQuery)
    narrowed = _failed(asked, "")
    with door.admission.reads.hold():
        groups = await survey.dead_groups(door.inspector, narrowed, asked.limit)
        if not groups:
            await refuse_unknown(door, asked)
    found = [
        {
            "fingerprint": group.fingerprint,
            "taskType": group.type,
            "error": group.error,
            "count": group.count,
            "firstFailedAt": instant(group.first_at),
            "lastFailedAt": instant(group.last_at),
            "example": id_text(group.example),
        }
        for group in groups
    ]
    return Response(to_json({"groups": found}), media_type="application/json")


@router.post(
    "/dead-letters/redrive",
    status_code=202,
    response_model=OperationView,
    responses=_ORDERED,
    openapi_extra=body_reference(RedriveBody),
)
async def redrive(request: Request, door: TheDoor) -> Response:
    """Run failed tasks again, with all their attempts before them; 202 with an operation."""
    asked = await body_of(request, RedriveBody, door.admission.changes)
    narrowed = _failed(asked.filter, "filter.")
    return await operate(door, asked, Wanted(Action.RETRY, narrowed, NO_CHANGE, per_s(asked.rate)))


@router.post(
    "/dead-letters/discard",
    status_code=202,
    response_model=OperationView,
    responses=_ORDERED,
    openapi_extra=body_reference(DiscardBody),
)
async def discard(request: Request, door: TheDoor) -> Response:
    """Delete failed tasks for good; 202 with an operation."""
    asked = await body_of(request, DiscardBody, door.admission.changes)
    narrowed = _failed(asked.filter, "filter.")
    return await operate(door, asked, Wanted(Action.DELETE, narrowed, NO_CHANGE, None))


def _failed(asked: FilterBody, under: str) -> TaskFilter:
    """Raises `BodyRefused` where it asks for another state."""
    if asked.state not in (None, [State.FAILED]):
        raise wrong(f"{under}state", "must be failed here, or left out")
    asked.state = None  # it asks for nothing more than what is meant anyway
    return replace(asked.narrowed(), state=State.FAILED)
