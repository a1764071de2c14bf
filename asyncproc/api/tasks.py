"""Tasks: enqueue, look at, list, retry."""

from asyncio import sleep
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from asyncproc.actors.answers import Cancelled
from asyncproc.actors.once import Keyed
from asyncproc.api import idempotency, unique
from asyncproc.api.body import TASKS_AT_ONCE, BodyRefused, declared_size, parse_enqueue, problems_of, read, refuse
from asyncproc.api.dependencies import tied
from asyncproc.api.door import Door, TheDoor
from asyncproc.api.instants import wrong_instant
from asyncproc.api.overflow import amended
from asyncproc.api.small_body import described, parse
from asyncproc.api.unique import Parsed
from asyncproc.clock import id_text, wall_now
from asyncproc.core.cancel import GRACE_S
from asyncproc.core.duration import parse_duration
from asyncproc.core.shape import shape_text
from asyncproc.core.states import State
from asyncproc.core.task import NO_TERMS, NewTask, Options, TaskId, Terms
from asyncproc.errors import KeyRefused, NotCancellable
from asyncproc.registry import UnknownTaskType
from asyncproc.wire import (
    CancelAnswer,
    CancelBody,
    EnqueueAnswer,
    ErrorBody,
    Problem,
    TaskBody,
    TaskView,
    view,
)

router = APIRouter(tags=["tasks"])

ERRORS: Final[dict[int | str, dict[str, Any]]] = {429: {"model": ErrorBody}, 503: {"model": ErrorBody}}
MAX_WAIT_S: Final = 60.0
"""Whoever wants to wait for longer asks again."""


@router.post(
    "/tasks/enqueue",
    response_model=EnqueueAnswer,
    responses={**ERRORS, **{status: {"model": ErrorBody} for status in (400, 408, 409, 413, 422)}},
    openapi_extra={
        "parameters": [idempotency.PARAMETER],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EnqueueBody"}}},
        },
    },
)
async def enqueue(request: Request, door: TheDoor) -> Response:
    """Enqueue tasks, all of them or none. 200 once they are committed.

    With an `Idempotency-Key` the same request can be sent again until it is answered: it makes no second task, and gets
    the answer of the first.
    """
    key = idempotency.key_of(request)
    size = declared_size(request, door.limits.max_body_bytes)
    door.refuse_late()
    with door.admission.enqueues.hold(size) as held:
        await door.stored.known()
        body = await read(request, door.limits.max_body_bytes, held)
        if key is not None:
            return _json(await idempotency.enqueue(key, body, door, _parse, _answer))
        tasks, wishes = await _parse(body, door)
        cancelling = door.cancelling.names(door.stored.current)
        if wishes:
            answer = await door.gateway.enqueue_unique(Keyed("", b"", _answer(tasks), tasks, wishes))
            return _json(await amended(answer, tasks, cancelling, door.inspector) if cancelling else answer)
        await door.gateway.enqueue(tasks)
        async with door.admission.answering:
            answer = _answer(tasks)
        return _json(await amended(answer, tasks, cancelling, door.inspector) if cancelling else answer)


_NEW_OF_ITS_KEY: Final = {"existing": False}


def _answer(tasks: list[NewTask]) -> bytes:
    summaries = [
        {
            "id": id_text(task_id),
            "taskType": options.type,
            "priority": options.priority,
            "status": State.BLOCKED if terms.parents else State.SCHEDULED if delay_s > 0 else State.QUEUED,
            "queue": options.queue,
            **(_NEW_OF_ITS_KEY if terms.unique_key else {}),
        }
        for task_id, _, options, delay_s, terms in tasks
    ]
    return to_json({"tasks": summaries, "status": "enqueued"})


@router.get(
    "/task/{task_id}",
    response_model=TaskView,
    responses={**ERRORS, 400: {"model": ErrorBody}, 404: {"model": ErrorBody}},
)
async def get_task(
    task_id: str,
    door: TheDoor,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for its end; then it is answered as it is")
    ] = 0.0,
) -> Response:
    """One task in full: where it stands, its payload, its result, and every failed attempt."""
    known = task_id_of(task_id)
    if wait:
        with door.admission.watches.hold():
            await door.watch.until_ended(known, wait)
    with door.admission.reads.hold():
        record = await door.inspector.task(known)
    if record is None:
        raise unknown(task_id)
    return _json(view(record))


@router.post(
    "/task/{task_id}/retry",
    response_model=TaskView,
    responses={**ERRORS, **{status: {"model": ErrorBody} for status in (400, 404, 409)}},
)
async def retry(task_id: str, door: TheDoor) -> Response:
    """Run a failed task again, with all its attempts before it. 400 where it is not failed, 409 where another has its
    unique key meanwhile and has not ended."""
    known = task_id_of(task_id)
    with door.admission.retries.hold():
        accepted = await door.gateway.retry(known)
        record = await door.inspector.task(known)
    if record is None:
        raise unknown(task_id)
    if not accepted:
        raise BodyRefused(400, f"only failed tasks can be retried: task {task_id} is {record.state}")
    return _json(view(record))


@router.post(
    "/task/{task_id}/cancel",
    response_model=CancelAnswer,
    responses={**ERRORS, **{status: {"model": ErrorBody} for status in (400, 404, 409)}},
    openapi_extra=described(CancelBody, required=False),
)
async def cancel(task_id: str, request: Request, door: TheDoor) -> Response:
    """End a task. One that waits is cancelled when this is answered. One that runs is asked to end: it sees
    `ctx.cancelled`, an `async def` is cancelled, and after `grace` its process is ended; a success that comes first
    stands. 409 where it has ended."""
    asked = await parse(request, CancelBody, door.admission.retries)
    known = task_id_of(task_id)
    grace_s = GRACE_S if asked.grace is None else parse_duration(asked.grace)
    with door.admission.retries.hold():
        came_to = await door.gateway.cancel(known, asked.reason or "cancelled on request", grace_s)
        record = await door.inspector.task(known)
    if record is None:
        raise unknown(task_id)
    if came_to is Cancelled.GONE and record.state is not State.CANCELLED:
        raise NotCancellable(task_id, record.state)
    answer = CancelAnswer(id=id_text(known), status=record.state, cancelled=came_to.value)
    return _json(answer.model_dump_json(by_alias=True).encode())


async def _parse(body: bytes, door: Door) -> Parsed:
    """Raises `BodyRefused`."""
    async with door.admission.parsing:
        bodies = await parse_enqueue(body, door.limits.max_tasks)
        tasks = await _accept(bodies, door)
    # Not in turn: it may ask Postgres, and nobody else's body waits for that.
    tasks = await tied(bodies, tasks, door.inspector)
    return await unique.with_wishes(bodies, tasks, door.registry)


async def _accept(bodies: list[TaskBody], door: Door) -> list[NewTask]:
    """Tasks as the QueueActor takes them. Raises `BodyRefused` naming every offending task."""
    problems: list[Problem] = []
    too_large: list[Problem] = []
    tasks: list[NewTask] = []
    shared: dict[tuple[object, ...], Options] = {}
    for index, body in enumerate(bodies):
        if index and not index % TASKS_AT_ONCE:
            await sleep(0)
        try:
            payload = door.registry.validate(body.task_type, body.payload or {})
            options = _options(body, payload, door, shared)
        except (UnknownTaskType, KeyRefused) as error:
            field = to_camel(error.field) if isinstance(error, KeyRefused) else "taskType"
            problems.append(Problem(index=index, field=field, message=str(error)))
            continue
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            problems.extend(problems_of(found, index, ("payload",)))
            continue
        if len(payload) > door.limits.max_task_bytes:
            message = f"is {len(payload)} bytes: at most {door.limits.max_task_bytes} are allowed"
            too_large.append(Problem(index=index, field="payload", message=message))
            continue
        delay_s = 0.0 if body.delay is None else parse_duration(body.delay)
        terms = NO_TERMS
        if body.run_at or body.start_by or body.deadline:
            now = wall_now()
            if body.run_at is not None:
                delay_s = max(0.0, body.run_at.timestamp() - now)
            if (problem := wrong_instant(body, now, now + delay_s)) is not None:
                problems.append(problem.model_copy(update={"index": index}))
                continue
            start_by, deadline, run_at = (
                0.0 if at is None else at.timestamp() for at in (body.start_by, body.deadline, body.run_at)
            )
            terms = Terms(start_by, deadline, run_at=run_at)
        tasks.append((door.ids.make(), payload, options, delay_s, terms))
    if problems or too_large:
        raise refuse([*problems, *too_large], 400 if problems else 413)
    return tasks


def _options(body: TaskBody, payload: bytes, door: Door, shared: dict[tuple[object, ...], Options]) -> Options:
    """Tasks that ask for the same share one object, in memory and on the wire. Raises `KeyRefused`."""
    limits = (body.timeout, body.soft_timeout)
    keys = (
        *door.registry.keys_of(body.task_type, payload, body.concurrency_key, body.fairness_key), body.affinity_key,
    )  # fmt: skip
    shape = None if body.resources is None else shape_text(body.resources)
    key = (body.task_type, body.queue, body.priority, body.back_off_duration, body.created_by, *limits, *keys, shape)
    options = shared.get(key)
    if options is None:
        back_off_s, timeout_s, soft_timeout_s = (
            None if text is None else parse_duration(text) for text in (body.back_off_duration, *limits)
        )
        options = shared[key] = door.registry.options_for(
            body.task_type,
            queue=body.queue,
            priority=body.priority,
            backoff_s=back_off_s,
            timeout_s=timeout_s,
            soft_timeout_s=soft_timeout_s,
            created_by=body.created_by or "",
            concurrency_key=keys[0],
            fairness_key=keys[1],
            affinity_key=keys[2],
            resources=shape,
        )
    return options


def task_id_of(text: str) -> TaskId:
    """Raises 404: there is no task of such an id."""
    try:
        return UUID(text).bytes
    except ValueError:
        raise unknown(text) from None


def unknown(task_id: str) -> HTTPException:
    return HTTPException(404, f"there is no task {task_id[:100]}")


def _json(text: bytes) -> Response:
    return Response(text, media_type="application/json")
