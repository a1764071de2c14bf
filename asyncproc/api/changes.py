"""Change one task that waits."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from starlette.exceptions import HTTPException

from asyncproc.api.door import TheDoor
from asyncproc.api.parsing import Asked, SoonInstant, body_of, body_reference, wrong
from asyncproc.api.tasks import ERRORS, task_id_of, unknown
from asyncproc.core.asked import Change
from asyncproc.core.duration import parse_duration
from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.task import QUEUE_NAME
from asyncproc.errors import QueueUnavailable
from asyncproc.wire import Delay, ErrorBody, TaskView, view

router = APIRouter(tags=["tasks"])

Priority = Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY, strict=True)]
QueueName = Annotated[str, Field(pattern=QUEUE_NAME)]
WHEN: Final = ("runAt", "delay", "runNow")
_EXAMPLE: Final[JsonDict] = {"priority": 5, "queue": "urgent"}


class ChangeBody(Asked):
    """What becomes of the task; what is not named stays as it is. Of `runAt`, `delay` and `runNow` one at most."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE, {"delay": "10m"}, {"runNow": True}]})

    priority: Priority | None = None
    """Higher is sooner. The wait that the task had counts on."""
    queue: QueueName | None = None
    run_at: SoonInstant | None = None
    """It does not run before this instant."""
    delay: Annotated[Delay, Field(max_length=64)] | None = None
    """It does not run before so much time has passed."""
    run_now: Literal[True] | None = None
    """It takes its place among those that are ready."""

    def change(self) -> Change:
        """Raises `BodyRefused`."""
        if not self.model_fields_set:
            raise wrong("", "name what is to be changed: priority, queue, runAt, delay or runNow")
        given = [name for name, value in zip(WHEN, (self.run_at, self.delay, self.run_now), strict=True) if value]
        if len(given) > 1:
            raise wrong(given[1], f"conflicts with {given[0]}: name one of {', '.join(WHEN)}")
        delay_s = 0.0 if self.run_now else None if self.delay is None else parse_duration(self.delay)
        return Change(self.priority, self.queue, None if self.run_at is None else self.run_at.timestamp(), delay_s)


@router.patch(
    "/task/{task_id}",
    response_model=TaskView,
    responses={**ERRORS, **{status: {"model": ErrorBody} for status in (400, 404, 408, 409, 413)}},
    openapi_extra=body_reference(ChangeBody),
)
async def change_task(task_id: str, request: Request, door: TheDoor) -> Response:
    """Change a task that waits: its priority, its queue, or when it may run; in force at the next pop.

    409 where it runs or has ended.
    """
    known = task_id_of(task_id)
    asked = await body_of(request, ChangeBody, door.admission.changes)
    change = asked.change()
    with door.admission.changes.hold():
        outcome = await door.gateway.change_task(known, change)
        record = await door.inspector.task(known)
    if record is None:
        raise unknown(task_id)
    if outcome.contended:
        raise QueueUnavailable("the task changes faster than it can be read")
    if outcome.refused is not None or not outcome.is_there:
        state: Any = outcome.refused or record.state
        raise HTTPException(409, f"task {task_id} is {state}: only a task that waits can be changed")
    return Response(view(record), media_type="application/json")
