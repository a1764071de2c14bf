"""Do something to all tasks that match a filter, in the background, and see how far it has come."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from asyncproc.api.changes import Priority, QueueName
from asyncproc.api.door import Door, TheDoor
from asyncproc.api.filters import FilterBody, refuse_unknown
from asyncproc.api.parsing import Asked, SoonInstant, body_of, body_reference, wrong
from asyncproc.api.tasks import ERRORS
from asyncproc.clock import id_text
from asyncproc.core.asked import Action, Change, applies_to
from asyncproc.core.duration import parse_duration
from asyncproc.core.record import NO_FILTER, OperationState, Order, Progress, TaskFilter
from asyncproc.storage import operations, survey
from asyncproc.wire import Body, Delay, ErrorBody

router = APIRouter(tags=["operations"])

_RATE: Final = re.compile(r"([1-9]\d{0,5})/(s|min|h)")
_PER_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    **ERRORS,
    **{status: {"model": ErrorBody} for status in (400, 404, 408, 413)},
}


def _rate(text: str) -> str:
    if _RATE.fullmatch(text) is None:
        raise ValueError("must be a number of tasks a time, such as 100/s, 60/min or 500/h")
    return text


Rate = Annotated[str, AfterValidator(_rate), Field(max_length=20)]


def per_s(rate: str | None) -> float | None:
    match = None if rate is None else _RATE.fullmatch(rate)
    return None if match is None else int(match[1]) / _PER_S[match[2]]


class ManyBody(Asked):
    """`all` must be said where the filter asks for nothing."""

    filter: FilterBody = Field(default_factory=FilterBody)
    all: bool = False
    dry_run: bool = False
    """Only count what matches."""


class BulkBody(ManyBody):
    """What is to be done to all tasks that match: `changePriority` wants `priority`, `move` wants `queue`, `postpone`
    wants `runAt` or `delay`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"action": "changePriority", "filter": {"queue": "mail", "state": "queued"}, "priority": 5},
                {"action": "cancel", "filter": {"type": "SendEmail", "createdBy": "import"}, "dryRun": True},
            ]
        }
    )

    action: Action
    priority: Priority | None = None
    queue: QueueName | None = None
    run_at: SoonInstant | None = None
    delay: Annotated[Delay, Field(max_length=64)] | None = None
    rate: Rate | None = None
    """So many tasks a time at most, such as `100/s`."""

    def change(self) -> Change:
        """Raises `BodyRefused` where what the action wants is missing, or something else is there."""
        given = {name for name in ("priority", "queue", "runAt", "delay") if self._has(name)}
        wanted = _WANTED.get(self.action, frozenset())
        if surplus := sorted(given - wanted):
            raise wrong(surplus[0], f"is not for {self.action}{_which(wanted)}")
        if wanted and len(given) != 1:
            raise wrong(sorted(given or wanted)[-1], f"{self.action} wants {' or '.join(sorted(wanted))}")
        run_at = None if self.run_at is None else self.run_at.timestamp()
        delay_s = None if self.delay is None else parse_duration(self.delay)
        return Change(self.priority, self.queue, run_at, 0.0 if self.action is Action.RUN_NOW else delay_s)

    def _has(self, alias: str) -> bool:
        return any(info.alias == alias and getattr(self, name) is not None for name, info in _FIELDS.items())


_FIELDS: Final = BulkBody.model_fields
_WANTED: Final[Mapping[Action, frozenset[str]]] = {
    Action.CHANGE_PRIORITY: frozenset({"priority"}),
    Action.MOVE: frozenset({"queue"}),
    Action.POSTPONE: frozenset({"runAt", "delay"}),
}


def _which(wanted: frozenset[str]) -> str:
    return f", which wants {' or '.join(sorted(wanted))}" if wanted else ""


_OPERATION: Final[JsonDict] = {
    "id": "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7",
    "action": "changePriority",
    "filter": {"queue": ["mail"]},
    "arguments": {"priority": 5},
    "rate": None,
    "state": "running",
    "matched": 20_000,
    "done": 19_998,
    "skipped": 2,
    "createdAt": "2026-11-25T09:00:00Z",
    "finishedAt": None,
}


class OperationView(Body):
    """How far an operation has come. `skipped` are tasks that matched and were in a state that the action is not for,
    such as running ones that were to be changed. After a crash of the QueueActor tasks of its last batch may not be
    counted."""

    model_config = ConfigDict(json_schema_extra={"examples": [_OPERATION]})

    id: str
    action: Action
    filter: dict[str, Any]
    arguments: dict[str, Any]
    rate: float | None
    """Tasks a second."""
    state: OperationState
    matched: int
    done: int
    skipped: int
    created_at: datetime
    finished_at: datetime | None


class OperationList(Body):
    """The newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operations": [_OPERATION]}]})

    operations: list[OperationView]


class DryRunView(Body):
    """How many tasks match and are in a state that the action is for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "cancel", "dryRun": True, "matched": 1_000_000, "estimated": False}]}
    )

    action: Action
    dry_run: bool
    matched: int
    estimated: bool
    """To count them took too long: this is what Postgres expects."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an endpoint makes of its body."""

    action: Action
    narrowed: TaskFilter
    change: Change
    rate: float | None


@router.post(
    "/tasks/bulk",
    status_code=202,
    response_model=OperationView,
    responses={**REFUSALS, 200: {"model": DryRunView}},
    openapi_extra=body_reference(BulkBody),
)
async def bulk(request: Request, door: TheDoor) -> Response:
    """Do something to all tasks that match a filter: 202 with an operation, whose progress can be asked for.

    It means the tasks that are there when it is asked for; `delete` means finished ones, `retry` failed ones, all other
    actions those that have not ended. 404 where nothing matches. With `dryRun` it answers 200 with their number.
    """
    asked = await body_of(request, BulkBody, door.admission.changes)
    return await operate(door, asked, Wanted(asked.action, asked.filter.narrowed(), asked.change(), per_s(asked.rate)))


@router.get("/operations", response_model=OperationList, responses=ERRORS)
async def list_operations(door: TheDoor) -> Response:
    """The latest operations; finished ones are kept for 30 days."""
    with door.admission.reads.hold():
        found = await operations.latest(door.inspector)
    return _json({"operations": [_view(progress) for progress in found]})


@router.get("/operations/{operation_id}", response_model=OperationView, responses={**ERRORS, 404: {"model": ErrorBody}})
async def get_operation(operation_id: str, door: TheDoor) -> Response:
    """How far an operation has come."""
    with door.admission.reads.hold():
        return _json(_view(await _progress(door, operation_id)))


@router.post(
    "/operations/{operation_id}/cancel",
    response_model=OperationView,
    responses={**ERRORS, 404: {"model": ErrorBody}, 409: {"model": ErrorBody}},
)
async def cancel_operation(operation_id: str, door: TheDoor) -> Response:
    """Do nothing more of an operation; what is done stays done. 409 where it is over."""
    with door.admission.changes.hold():
        progress = await _progress(door, operation_id)
        cancelled = await door.gateway.cancel_operation(progress.order.id)
        progress = await _progress(door, operation_id)
    if not cancelled:
        raise HTTPException(409, f"operation {operation_id} is {progress.state} already")
    return _json(_view(progress))


async def operate(door: Door, asked: ManyBody, wanted: Wanted) -> Response:
    """Raises `BodyRefused` where the filter asks for nothing, for what cannot be, or for what is not there."""
    action, narrowed = wanted.action, wanted.narrowed
    is_all = asked.filter.narrowed() == NO_FILTER
    if is_all and not asked.all:
        raise wrong("filter", f'asks for nothing: {action} of all tasks must be said by "all": true')
    if asked.all and not is_all:
        raise wrong("all", "conflicts with filter: name one of them")
    if asked.filter.state is not None and not applies_to(action).issuperset(asked.filter.state):
        raise wrong("filter.state", f"{action} is for tasks that are {_states(action)}")
    with door.admission.changes.hold():
        if asked.dry_run:
            counted = await survey.count(door.inspector, action, narrowed)
            if not counted.number and not counted.estimated:
                await refuse_unknown(door, asked.filter, "filter.")
            body = DryRunView(action=action, dry_run=True, matched=counted.number, estimated=counted.estimated)
            return _json(body.model_dump(by_alias=True))
        if await survey.is_any(door.inspector, action, narrowed) is False:
            await refuse_unknown(door, asked.filter, "filter.")
            raise wrong("filter", f"nothing matches: no such task is {_states(action)}", 404)
        order = Order(door.ids.make(), action, narrowed, wanted.change, wanted.rate)
        await door.gateway.order(order)
        progress = await operations.one(door.inspector, order.id)
    if progress is None:
        raise HTTPException(503, f"operation {id_text(order.id)} is not to be seen yet")
    return _json(_view(progress), 202)


async def _progress(door: Door, operation_id: str) -> Progress:
    try:
        progress = await operations.one(door.inspector, UUID(operation_id).bytes)
    except ValueError:
        progress = None
    if progress is None:
        raise HTTPException(404, f"there is no operation {operation_id[:100]}")
    return progress


def _states(action: Action) -> str:
    *others, last = sorted(applies_to(action))
    return f"{', '.join(others)} or {last}" if others else last


def _view(progress: Progress) -> dict[str, Any]:
    order = progress.order
    return {
        "id": id_text(order.id),
        "action": order.action,
        "filter": operations.filter_json(order.narrowed),
        "arguments": _arguments(order.change),
        "rate": order.rate,
        "state": progress.state,
        "matched": progress.matched,
        "done": progress.done,
        "skipped": progress.skipped,
        "createdAt": instant(progress.created_at),
        "finishedAt": instant(progress.finished_at),
    }


def _arguments(change: Change) -> dict[str, Any]:
    arguments = {"priority": change.priority, "queue": change.queue, "runAt": instant(change.ready_at)}
    return {name: value for name, value in arguments.items() if value is not None}


def instant(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(body), status, media_type="application/json")
