"""What travels over HTTP: the bodies of the REST API, in the seed's camelCase names."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import to_json

from asyncproc.clock import id_text
from asyncproc.core.cancel import MAX_GRACE_S
from asyncproc.core.dependents import UNTIL_RELEASED
from asyncproc.core.duration import format_duration, parse_duration
from asyncproc.core.origin import Origin
from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.record import TaskRecord
from asyncproc.core.retry import MAX_BACKOFF_S
from asyncproc.core.shape import asked_by
from asyncproc.core.states import State
from asyncproc.core.task import (
    MAX_DELAY_S,
    MAX_KEY,
    MAX_PARENTS,
    MAX_TIMEOUT_S,
    MAX_TYPE_NAME,
    QUEUE_NAME,
    REF,
    OnParentFailure,
)
from asyncproc.sections import Resources
from asyncproc.unique import AskedUnique


class Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


def _between(text: str, most_s: float) -> str:
    if not 0 <= parse_duration(text) <= most_s:
        raise ValueError(f"must be between 0s and {format_duration(most_s)}")
    return text


BackOff = Annotated[str, AfterValidator(lambda text: _between(text, MAX_BACKOFF_S))]
TimeLimit = Annotated[str, AfterValidator(lambda text: _between(text, MAX_TIMEOUT_S))]


def _rfc3339(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be an instant with its offset, such as 2026-11-25T09:00:00Z")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]
Key = Annotated[str, Field(max_length=MAX_KEY)]
Grace = Annotated[str, AfterValidator(lambda text: _between(text, MAX_GRACE_S))]
Delay = Annotated[str, AfterValidator(lambda text: _between(text, MAX_DELAY_S))]


SEND_EMAIL: Final[JsonDict] = {
    "taskType": "SendEmail",
    "payload": {"sendTo": ["ada@example.org"], "sendFrom": "bob@example.org", "subject": "Hi!", "body": "All is well."},
}
CPU_PROCESS: Final[JsonDict] = {
    "taskType": "CPUProcess",
    "priority": 1,
    "payload": {"processType": "want to fail"},
    "backOffDuration": "5s",
}


class TaskBody(Body):
    """A task to enqueue."""

    model_config = ConfigDict(json_schema_extra={"examples": [SEND_EMAIL, CPU_PROCESS]})

    task_type: str = Field(min_length=1, max_length=MAX_TYPE_NAME)
    payload: dict[str, Any] | None = None
    priority: StrictInt | None = Field(default=None, ge=MIN_PRIORITY, le=MAX_PRIORITY)
    """Higher is sooner; 0 where neither the task nor its type says."""
    back_off_duration: BackOff | None = Field(default=None, max_length=64)
    """Seconds between attempts in Go's duration syntax, such as `5s` or `1m30s`; constant, without jitter."""
    queue: str | None = Field(default=None, pattern=QUEUE_NAME)
    created_by: str | None = Field(default=None, max_length=200)
    delay: Delay | None = Field(default=None, max_length=64)
    """How long the task waits before it is ready, in Go's duration syntax."""
    run_at: Instant | None = None
    """Not before this instant, in place of `delay`; one that is past is now."""
    start_by: Instant | None = None
    """Not begun by then it is cancelled, and never runs."""
    deadline: Instant | None = None
    """Not succeeded by then it fails, whatever attempts are left."""
    timeout: TimeLimit | None = Field(default=None, max_length=64)
    """How long one attempt may take: then it fails, and its process is ended. `0s` is without limit."""
    soft_timeout: TimeLimit | None = Field(default=None, max_length=64)
    """When a running attempt is told to come to an end. `0s` is never."""
    concurrency_key: Key | None = None
    """Of the tasks of a queue that share one, only `maxRunningPerKey` run at once."""
    fairness_key: Key | None = None
    """The keys of a queue take turns by their weights, whoever has more waiting."""
    affinity_key: Key | None = None
    """It goes to the worker that ran the last task with this key, which has what it needs at hand, if that one has room
    within `queue.affinityWait`."""
    unique: AskedUnique = None
    """Made only where no other with the same key is there. `false`: in any case, whatever its type says."""
    ref: str | None = Field(default=None, pattern=REF)
    """A name for the task within this request, for `dependsOn` of others."""
    depends_on: list[Annotated[str, Field(max_length=100)]] | None = Field(default=None, max_length=MAX_PARENTS)
    """Tasks that must have ended before this one begins: ids, or refs of tasks in this request."""
    on_parent_failure: OnParentFailure | None = None
    """What becomes of it when one of them does not succeed: `fail` (where nothing is said), `skip` (it is cancelled) or
    `run`."""
    resources: Resources | None = None
    """What its worker is to have for it alone, in place of what its type asks for: `num_cpus`, `num_gpus`, `memory`
    and custom resources of Ray."""


class EnqueueBody(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"tasks": [SEND_EMAIL, CPU_PROCESS]},
                {"tasks": [CPU_PROCESS | {"ref": "work"}, SEND_EMAIL | {"dependsOn": ["work"]}]},
            ]
        }
    )

    tasks: list[TaskBody] = Field(min_length=1)


_TASK_SUMMARY: Final[JsonDict] = {
    "id": "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7",
    "taskType": "CPUProcess",
    "priority": 1,
    "status": "queued",
    "queue": "default",
}


class TaskSummary(Body):
    """A task as the answer to its enqueueing names it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TASK_SUMMARY]})

    id: str
    task_type: str
    priority: int
    status: State
    queue: str


class EnqueuedTask(TaskSummary):
    existing: bool | None = None
    """Of a task with `unique` alone: whether this is another, which was there already and stands for it."""
    replaced: bool | None = None
    """True where that other waited and has all that this task brought."""


class EnqueueAnswer(Body):
    """All tasks of the request are committed, in their order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tasks": [_TASK_SUMMARY], "status": "enqueued"}]})

    tasks: list[EnqueuedTask]
    status: str


class CancelBody(Body):
    """How a task is to end."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "not needed any more", "grace": "30s"}]}
    )

    reason: str | None = Field(default=None, max_length=1_000, pattern=r"^[^\x00]*$")
    """Kept as the error of the task."""
    grace: Grace | None = Field(default=None, max_length=64)
    """How long a running task has before its process is ended; 10s where nothing is said."""


class CancelAnswer(Body):
    """`cancelled` is `ended` where it is done, `asked` where the task runs and was asked to end, `gone` where it was
    cancelled before."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7", "status": "cancelled", "cancelled": "ended"}]
        }
    )

    id: str
    status: State
    cancelled: str


class TaskError(Body):
    """One failed attempt."""

    attempt: int
    started_at: datetime
    failed_at: datetime
    worker: str | None
    type: str
    message: str
    traceback: str


class TaskProgress(Body):
    """How far a task has come, as its last attempt to say so has it."""

    done: float
    total: float | None
    note: str | None
    at: datetime
    """By the clock of its worker."""


class LogLine(Body):
    """A line that an attempt logged with its task."""

    at: datetime
    """By the clock of its worker."""
    attempt: int
    message: str


class TaskView(TaskSummary):
    """A task in full."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _TASK_SUMMARY
                | {
                    "status": "failed",
                    "attempt": 4,
                    "maxAttempts": 4,
                    "backOffDuration": "5s",
                    "timeout": None,
                    "softTimeout": None,
                    "concurrencyKey": None,
                    "fairnessKey": None,
                    "affinityKey": None,
                    "uniqueKey": None,
                    "dependsOn": [],
                    "dependsOnCount": 0,
                    "onParentFailure": None,
                    "resources": None,
                    "origins": {"priority": "task", "maxAttempts": "config", "backOffDuration": "task"},
                    "createdAt": "2026-11-25T09:00:00Z",
                    "createdBy": "",
                    "readyAt": "2026-11-25T09:00:15Z",
                    "startedAt": "2026-11-25T09:00:15Z",
                    "finishedAt": "2026-11-25T09:00:15Z",
                    "worker": "default-1.4f0c2a91",
                    "error": "FailsOnPurpose: CPUProcess 'want to fail' fails on purpose (attempt 4)",
                    "payload": {"processType": "want to fail"},
                    "result": None,
                    "errors": [],
                    "progress": {"done": 40, "total": 100, "note": "page 40", "at": "2026-11-25T09:00:15Z"},
                    "log": [{"at": "2026-11-25T09:00:15Z", "attempt": 4, "message": "page 40 is empty"}],
                    "checkpoint": {"page": 40},
                }
            ]
        }
    )

    attempt: int
    """Number of the attempt that runs or ran last; 0 before the first."""
    max_attempts: int
    back_off_duration: str
    timeout: str | None
    """How long one attempt may take; null is without limit."""
    soft_timeout: str | None
    created_at: datetime
    created_by: str
    ready_at: datetime | None
    """When it became, or will become, ready to run; null where it waits for other tasks, or ended so."""
    start_by: datetime | None = None
    """Not begun by then it is cancelled."""
    deadline: datetime | None = None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    error: str | None
    payload: Any
    result: Any
    errors: list[TaskError]
    concurrency_key: str | None = None
    fairness_key: str | None = None
    affinity_key: str | None = None
    unique_key: str | None = None
    """By which it is the only one of its type: as given, or a hash of its payload or of fields of it."""
    depends_on: list[str] = Field(default_factory=list)
    """Tasks that have to end before it begins, the first 100 of them."""
    depends_on_count: int = 0
    on_parent_failure: OnParentFailure | None = None
    resources: dict[str, float | str] | None = None
    """What its worker has for it alone; null is a slot like any other."""
    origins: dict[str, str] = Field(default_factory=dict)
    """Who said each of the values that a task may leave to others when it was enqueued: `task`, `stored` (settings of
    its type or queue), `config` or `code`."""
    progress: TaskProgress | None = None
    log: list[LogLine] | None = None
    """The newest lines of each of its last attempts; like `checkpoint` not in lists."""
    checkpoint: Any = None
    """What its last attempt left for the next one."""


class TaskList(Body):
    """Tasks, newest first. `next` is the cursor of the following page, null on the last."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"tasks": TaskView.model_json_schema()["examples"], "next": None}]}
    )

    tasks: list[TaskView]
    next: str | None


class Problem(Body):
    """What is wrong with one field of one task."""

    index: int | None
    field: str
    message: str


class ErrorBody(Body):
    """`error` says all of it in one line; `errors` says it by task and field."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "tasks[1].payload.sendTo: Field required",
                    "errors": [{"index": 1, "field": "payload.sendTo", "message": "Field required"}],
                }
            ]
        }
    )

    error: str
    errors: list[Problem] | None = None


class HealthBody(Body):
    """Whether QueueActor, workers and Postgres answer; `error` names what does not, or why no new tasks are taken.

    `status` is `healthy`, `degraded` or `unhealthy`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "healthy", "queueActor": "ok", "workers": "2 answer", "postgres": "ok"}]
        }
    )

    status: str
    queue_actor: str
    workers: str
    postgres: str
    error: str | None = None
    unknown_types: list[str] | None = None
    """Types of which tasks wait because not all workers of their pool know them."""
    warnings: list[str] | None = None
    """Pools whose workers cannot start, and why."""


_WITH_ORIGIN: Final = ("priority", "maxAttempts", "backOffDuration", "timeout", "softTimeout")
_ORIGINS: Final = {origin.letter: origin for origin in Origin}


def view(record: TaskRecord, in_list: bool = False) -> bytes:
    """`TaskView` as JSON. Payload, result, errors and notes pass as the text they are: nobody parses them on the
    way."""
    head = to_json(
        {
            "id": id_text(record.id),
            "taskType": record.type,
            "priority": record.priority,
            "status": record.state,
            "queue": record.queue,
            "attempt": record.attempt,
            "maxAttempts": record.max_attempts,
            "backOffDuration": format_duration(record.backoff_s),
            "timeout": _limit(record.timeout_s),
            "softTimeout": _limit(record.soft_timeout_s),
            "createdAt": instant(record.created_at),
            "createdBy": record.created_by,
            "readyAt": instant(record.ready_at) if record.ready_at < UNTIL_RELEASED else None,
            "startBy": instant(record.start_by),
            "deadline": instant(record.deadline),
            "startedAt": instant(record.started_at),
            "finishedAt": instant(record.finished_at),
            "worker": record.worker,
            "error": record.error,
            "concurrencyKey": record.concurrency_key or None,
            "fairnessKey": record.fairness_key or None,
            "affinityKey": record.affinity_key or None,
            "uniqueKey": record.unique_key,
            "dependsOn": [id_text(parent) for parent in record.depends_on],
            "dependsOnCount": record.depends_on_count,
            "onParentFailure": record.on_parent_failure,
            "resources": asked_by(record.resources) if record.resources else None,
            "origins": dict(zip(_WITH_ORIGIN, map(_ORIGINS.__getitem__, record.origins), strict=False)),
        }
    )
    tail = (head[:-1], b',"payload":', record.payload, b',"result":', record.result or b"null", b',"errors":')
    notes = [b',"progress":', record.progress or b"null"]
    if not in_list:
        notes += [b',"log":', record.log or b"[]", b',"checkpoint":', record.checkpoint or b"null"]
    return b"".join((*tail, record.errors, *notes, b"}"))


def _limit(seconds: float) -> str | None:
    return format_duration(seconds) if seconds else None


def instant(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
