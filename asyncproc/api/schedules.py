"""Schedules: tasks that are made by the clock."""

from asyncio import sleep
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException

from asyncproc.api import pauses
from asyncproc.api.body import declared_size, flaw_of, problems_of, read, refuse
from asyncproc.api.door import Door, TheDoor
from asyncproc.api.parsing import body_of, wrong
from asyncproc.api.queue_bodies import PauseBody
from asyncproc.api.queues import CHANGE_ERRORS, READ_ERRORS, VIEWS_AT_ONCE
from asyncproc.api.schedule_bodies import (
    BackfillAnswer,
    BackfillBody,
    NewScheduleBody,
    ScheduleList,
    SchedulePatch,
    ScheduleView,
    TriggerAnswer,
    refused,
)
from asyncproc.api.small_body import MAX_BYTES, described
from asyncproc.changes import AskTicks, DeleteSchedule, PauseSchedule, PutSchedule, ResumeSchedule
from asyncproc.clock import id_text, wall_now
from asyncproc.core.rank import to_micros
from asyncproc.core.schedule import MAX_LINE, Overlap, Plan, Tick, TickRecord, just_before
from asyncproc.core.steering import Pause
from asyncproc.core.task import QUEUE_NAME
from asyncproc.errors import KeyRefused, SettingsRefused
from asyncproc.plans import Keys, ScheduleSettings, StoredSchedule, settings_of, to_document
from asyncproc.registry import UnknownTaskType
from asyncproc.sections import Section
from asyncproc.wire import Problem, instant

router = APIRouter(tags=["schedules"])

NEXT: Final = 5
LAST: Final = 20
MAX_BACKFILL: Final = 10_000
MAX_BACKFILL_BYTES: Final = 32 * 1024 * 1024
"""Bytes of the payloads that one backfill makes."""
TRIES: Final = 3
"""How often a change is made to what somebody else has just changed."""
_AT_ONCE: Final = 100
"""Instants that are reckoned before other requests get their turn."""

ScheduleName = Annotated[str, Path(pattern=QUEUE_NAME, examples=["morning-report"])]


@router.get("/schedules", response_model=ScheduleList, responses=READ_ERRORS)
async def list_schedules(door: TheDoor) -> Response:
    """All schedules, each with its next tick and its last one."""
    with door.admission.reads.hold():
        stored = await door.inspector.schedules()
        names = sorted({**door.settings.schedules, **{name: row for name, row in stored.items() if row.settings}})
        ticks = await door.inspector.last_ticks(names, 1) if names else {}
    views: list[dict[str, Any]] = []
    for name in names:
        views.append(_view(door, name, stored.get(name), ticks.get(name, ()), 1))
        if not len(views) % VIEWS_AT_ONCE:
            await sleep(0)
    return _json({"schedules": views})


@router.post(
    "/schedules",
    status_code=201,
    response_model=ScheduleView,
    responses=CHANGE_ERRORS,
    openapi_extra=described(NewScheduleBody),
)
async def create_schedule(request: Request, door: TheDoor) -> Response:
    """Create a schedule. Its first tick is the first one that is due from now on."""
    text = await _text(request, door)
    try:
        body = NewScheduleBody.model_validate_json(text or b"{}")
    except ValidationError as error:
        raise refused(error) from None
    name, said = body.name, from_json(text)
    del said["name"]
    if name in door.settings.schedules:
        raise HTTPException(409, f"schedule {name} is in the configuration: PATCH changes it")
    keys = _fits(door, body)
    await _change(door, PutSchedule(name, to_document(said, keys), 0))
    return _json(await _look(door, name), 201)


@router.get("/schedules/{name}", response_model=ScheduleView, responses=READ_ERRORS)
async def get_schedule(name: ScheduleName, door: TheDoor) -> Response:
    """One schedule: its next ticks, and what became of its last ones."""
    with door.admission.reads.hold():
        return _json(await _look(door, name))


@router.patch(
    "/schedules/{name}", response_model=ScheduleView, responses=CHANGE_ERRORS, openapi_extra=described(SchedulePatch)
)
async def change_schedule(name: ScheduleName, request: Request, door: TheDoor) -> Response:
    """Change some fields; null takes one back. Where that changes when it is due, it begins anew now."""
    text = await _text(request, door)
    try:
        asked: dict[str, Any] = SchedulePatch.model_validate_json(text or b"{}").model_extra or {}
    except ValidationError as error:
        raise refused(error) from None
    for tries_left in reversed(range(TRIES)):
        stored = await _found(door, name)
        said = _merged({} if stored is None else stored.settings, asked)
        version = 0 if stored is None else stored.version
        try:
            keys = _fits(door, settings_of(door.settings.schedules.get(name), StoredSchedule(version, said, None)))
        except ValidationError as error:
            raise refused(error) from None
        try:
            await _change(door, PutSchedule(name, to_document(said, keys), version))
            break
        except SettingsRefused as error:
            if error.kind not in {"stale", "exists"} or not tries_left:
                raise
    return _json(await _look(door, name))


@router.delete("/schedules/{name}", status_code=204, response_model=None, responses=CHANGE_ERRORS)
async def delete_schedule(name: ScheduleName, door: TheDoor) -> Response:
    """Forget it, and its pause: its ticks that wait for another task are skipped, tasks that were made stay. One that
    the configuration has is then as it says there."""
    stored = await _found(door, name)
    if stored is None:
        raise HTTPException(409, f"schedule {name} is as the configuration says: take it out there, or pause it")
    await _change(door, DeleteSchedule(name))
    return Response(status_code=204)


@router.post(
    "/schedules/{name}/pause",
    response_model=ScheduleView,
    responses=CHANGE_ERRORS,
    openapi_extra=described(PauseBody, required=False),
)
async def pause_schedule(name: ScheduleName, request: Request, door: TheDoor) -> Response:
    """Its ticks make no tasks, and are not made up for later, until it is resumed or until the end that is given."""
    until, for_s, body = await pauses.asked(request, door)
    await _found(door, name)
    await _change(door, PauseSchedule(name, Pause("schedule", name, until, body.reason, body.by), for_s))
    return _json(await _look(door, name))


@router.post("/schedules/{name}/resume", response_model=ScheduleView, responses=CHANGE_ERRORS)
async def resume_schedule(name: ScheduleName, door: TheDoor) -> Response:
    """End a pause: the first tick that makes a task is the first one that is due from now on."""
    stored = await _found(door, name)
    if stored is not None and stored.pause is not None:
        await _change(door, ResumeSchedule(name))
    return _json(await _look(door, name))


@router.post("/schedules/{name}/trigger", response_model=TriggerAnswer, responses=CHANGE_ERRORS)
async def trigger_schedule(name: ScheduleName, door: TheDoor) -> Response:
    """Make its task now, be it paused or not, whether its last task has ended or not. Answered once it is committed."""
    await _found(door, name)
    task_id = door.ids.make()
    await _change(door, AskTicks(name, (Tick(task_id, to_micros(wall_now()), "trigger"),)))
    return _json({"name": name, "taskId": id_text(task_id)})


@router.post(
    "/schedules/{name}/backfill",
    response_model=BackfillAnswer,
    responses=CHANGE_ERRORS,
    openapi_extra=described(BackfillBody),
)
async def backfill_schedule(name: ScheduleName, request: Request, door: TheDoor) -> Response:
    """Make the tasks of ticks that are past, all of them or none: with `instantField` each knows its instant. With
    `dryRun` only say how many these are."""
    asked = await body_of(request, BackfillBody, door.admission.changes)
    begin, end = asked.from_.timestamp(), asked.to.timestamp()
    if not begin < end <= wall_now():
        raise wrong("to", "must be after from, and not in the future")
    settings = settings_of(door.settings.schedules.get(name), await _found(door, name))
    instants = await _instants(settings.plan(), begin, end, _most(settings))
    if not instants:
        raise wrong("from", "there is no tick from there on and before to")
    if not asked.dry_run:
        ticks = tuple(Tick(door.ids.make(), at, "backfill") for at in instants)
        await _change(door, AskTicks(name, ticks))
    return _json({"name": name, "dryRun": asked.dry_run, "ticks": len(instants)})


# ---- what they share


async def _text(request: Request, door: Door) -> bytes:
    with door.admission.changes.hold(declared_size(request, MAX_BYTES)) as held:
        return await read(request, MAX_BYTES, held)


async def _change(door: Door, change: PutSchedule | DeleteSchedule | PauseSchedule | ResumeSchedule | AskTicks) -> None:
    with door.admission.changes.hold():
        await door.gateway.change(change)


def _merged(said: Any, asked: dict[str, Any]) -> dict[str, Any]:
    merged = {**said, **asked}
    for key, other in (("cron", "every"), ("every", "cron")):
        if asked.get(key) is not None and asked.get(other) is None:
            merged[other] = None
    return {key: value for key, value in merged.items() if value is not None}


def _fits(door: Door, settings: ScheduleSettings) -> Keys:
    """The keys that its type makes of its payload. Raises `BodyRefused` where its tasks would be refused."""
    flaw = flaw_of("payload", settings.payload)
    if flaw is not None:
        raise refuse([flaw])
    try:
        door.registry.validate(settings.task_type, settings.example())
        return door.registry.schedule_keys(settings)
    except KeyRefused as error:
        raise wrong(to_camel(error.field), str(error)) from None
    except UnknownTaskType as error:
        raise wrong("taskType", str(error)) from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise refuse([_under_payload(problem) for problem in problems_of(found, -1, ("payload",))]) from None


def _under_payload(problem: Problem) -> Problem:
    return problem.model_copy(update={"index": None})


def _most(settings: ScheduleSettings) -> int:
    """Ticks that one backfill may ask for."""
    most = min(MAX_BACKFILL, MAX_BACKFILL_BYTES // max(1, len(to_json(settings.payload))))
    return min(most, MAX_LINE) if settings.overlap is Overlap.QUEUE else most


async def _instants(plan: Plan, begin: float, end: float, most: int) -> list[float]:
    """Raises `BodyRefused` where these are too many."""
    instants: list[float] = []
    at = plan.after(just_before(begin))
    while at is not None and at < end:
        instants.append(at)
        if len(instants) > most:
            raise wrong("to", f"there are more than {most} ticks before it: ask for some at a time")
        if not len(instants) % _AT_ONCE:
            await sleep(0)
        at = plan.after(at)
    return instants


async def _found(door: Door, name: str) -> StoredSchedule | None:
    """What was said of it at run time. Raises 404 where there is no such schedule."""
    stored = await door.inspector.schedule(name)
    if name not in door.settings.schedules and (stored is None or not stored.settings):
        raise HTTPException(404, f"there is no schedule {name}: GET /schedules lists them, POST creates one")
    return stored


async def _look(door: Door, name: str) -> dict[str, Any]:
    stored = await _found(door, name)
    ticks = await door.inspector.last_ticks([name], LAST)
    return _view(door, name, stored, ticks.get(name, ()), NEXT)


def _view(
    door: Door, name: str, stored: StoredSchedule | None, ticks: Sequence[TickRecord], most: int
) -> dict[str, Any]:
    said = {} if stored is None else stored.settings
    pause = None if stored is None else stored.pause
    view: dict[str, Any] = {"name": name, **said}
    problem: str | None = None
    following: list[str] = []
    try:
        settings = settings_of(door.settings.schedules.get(name), stored)
    except ValidationError as error:
        problem = f"it is not in force: {refused(error)}"
    else:
        view |= _plain(settings)
        following = _next(settings.plan(), pause, most)
        if settings.task_type not in door.registry.names():
            problem = f"there is no task type {settings.task_type} any more"
    return {
        **view,
        "from": "stored" if said else "config",
        "paused": None if pause is None or 0 < pause.until <= wall_now() else _paused(pause),
        "next": following,
        "ticks": [_tick(tick) for tick in ticks],
        "problem": problem,
    }


def _plain(settings: Section) -> dict[str, Any]:
    fields = set(ScheduleSettings.model_fields)
    return settings.model_dump(mode="json", by_alias=True, include=fields)


def _next(plan: Plan, pause: Pause | None, most: int) -> list[str]:
    if pause is not None and not pause.until:
        return []
    at: float | None = wall_now() if pause is None else max(wall_now(), pause.until)
    found: list[str] = []
    while len(found) < most and at is not None and (at := plan.after(at)) is not None:
        found.append(from_json(plan.text(at)))
    return found


def _paused(pause: Pause) -> dict[str, Any]:
    until = instant(pause.until) if pause.until else None
    return {"since": instant(pause.since), "until": until, "reason": pause.reason, "by": pause.by}


def _tick(tick: TickRecord) -> dict[str, Any]:
    has_task = tick.outcome in {"task", "waiting"}
    return {
        "dueAt": instant(tick.due_at),
        "kind": tick.kind,
        "outcome": tick.outcome,
        "taskId": id_text(tick.task_id) if has_task else None,
        "decidedAt": instant(tick.decided_at),
    }


def _json(value: object, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")
