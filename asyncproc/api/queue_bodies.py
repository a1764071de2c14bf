"""What travels over HTTP about queues, task types, rate limits and pauses."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from asyncproc.core.duration import parse_duration
from asyncproc.core.task import MAX_TIMEOUT_S
from asyncproc.rules import PlainText, QueueRuleSettings, RateLimitSettings, TypeRuleSettings
from asyncproc.sections import Name, Section
from asyncproc.wire import Body

_QUEUE: Final[JsonDict] = {
    "weight": 4,
    "maxRunning": 20,
    "maxRunningPerKey": 2,
    "timeout": "5m",
    "aging": "30s",
    "maxWaiting": 1000,
    "overflow": "reject",
}
_TYPE: Final[JsonDict] = {"maxRunning": 8, "rateLimits": {"smtp": 1}, "maxTaskRetry": 5, "timeout": "30s"}
_RATE: Final[JsonDict] = {"rate": "60/min", "burst": 10}


class QueueBody(QueueRuleSettings):
    """Settings of a queue. In a PATCH a key that is null goes back to what the configuration or the code says."""

    model_config = ConfigDict(json_schema_extra={"examples": [_QUEUE]})


class NewQueueBody(QueueRuleSettings):
    """A queue and its settings."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "mail", **_QUEUE}]})

    name: Name


class TypeBody(TypeRuleSettings):
    """Settings of a task type. In a PATCH a key that is null goes back to what the configuration or the code says."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TYPE]})


class RateBody(RateLimitSettings):
    """A token bucket that fills at `rate` and holds `burst`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RATE]})


class PauseBody(Section):
    """Why, by whom and for how long."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason": "the relay is down", "by": "ada", "for": "30m"}]}
    )

    reason: Annotated[PlainText, Field(max_length=1_000)] = ""
    by: Annotated[PlainText, Field(max_length=200)] = ""
    until: AwareDatetime | None = None
    """An instant with its time zone; without one it lasts until resumed."""
    for_: Annotated[str | None, Field(alias="for", max_length=64)] = None
    """The same as a duration from now on."""

    @model_validator(mode="after")
    def _one_end(self) -> "PauseBody":
        if self.until is not None and self.for_ is not None:
            raise ValueError("until: conflicts with for: name the end by one of them")
        if self.for_ is not None and not 0 < parse_duration(self.for_) <= MAX_TIMEOUT_S:
            raise ValueError("for: must be longer than 0s and at most 8784h")
        return self


class PurgeBody(Section):
    model_config = ConfigDict(json_schema_extra={"examples": [{"dryRun": True}]})

    dry_run: bool = False
    """Only count what would be cancelled."""


PARSED: Final = (QueueBody, NewQueueBody, TypeBody, RateBody, PauseBody, PurgeBody)
"""Bodies that are parsed by this API and not by its framework."""


class Setting(Body):
    """A value and who said it: `stored`, `config` or `code`."""

    value: Any
    from_: Annotated[str, Field(alias="from")]


class PauseView(Body):
    """Nothing more begins; what runs goes on."""

    since: datetime
    until: datetime | None
    reason: str
    by: str


class PurgeView(Body):
    asked_at: datetime
    cancelled: int


_SETTING: Final[JsonDict] = {"value": 4, "from": "stored"}
_PAUSE: Final[JsonDict] = {
    "since": "2026-11-25T09:00:00Z",
    "until": "2026-11-25T09:30:00Z",
    "reason": "the relay is down",
    "by": "ada",
}
_QUEUE_VIEW: Final[JsonDict] = {
    "name": "mail",
    "settings": {"weight": _SETTING, "aging": {"value": "1m", "from": "code"}},
    "paused": _PAUSE,
    "drainingSince": None,
    "empty": False,
    "counts": {"queued": 12, "running": 2},
    "countedAt": "2026-11-25T09:00:00Z",
    "purging": None,
}


class QueueView(Body):
    """A queue: what holds for it, and how it stands."""

    model_config = ConfigDict(json_schema_extra={"examples": [_QUEUE_VIEW]})

    name: str
    settings: dict[str, Setting]
    paused: PauseView | None
    draining_since: datetime | None
    """It takes no new tasks."""
    empty: bool | None
    """Nothing waits or runs there; null where that is not known yet."""
    counts: dict[str, int] | None
    """Tasks by state, of the finished ones the failed; null where they are not counted yet."""
    counted_at: datetime | None
    purging: PurgeView | None = None
    """A purge that is under way; only where one queue is asked for."""


class QueueList(Body):
    """All queues that have settings, tasks, or task types that go there; `paused` where everything is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queues": [_QUEUE_VIEW], "paused": None}]})

    queues: list[QueueView]
    paused: PauseView | None


_TYPE_VIEW: Final[JsonDict] = {
    "name": "SendEmail",
    "queue": "default",
    "resources": None,
    "settings": {"maxRunning": {"value": 8, "from": "stored"}, "timeout": {"value": "0s", "from": "code"}},
    "paused": None,
}


class TypeView(Body):
    """A task type: what holds for its tasks in the queue that they go to where they name none."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TYPE_VIEW]})

    name: str
    queue: str
    resources: dict[str, float | str] | None = None
    """What each of its tasks asks of its worker, where the task does not say it."""
    settings: dict[str, Setting]
    paused: PauseView | None


class TypeList(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"types": [_TYPE_VIEW], "unknown": ["Resize"]}]})

    types: list[TypeView]
    unknown: list[str]
    """Types of which tasks wait because not all workers of their pool know them: some run older or newer code."""


_RATE_VIEW: Final[JsonDict] = {
    "name": "smtp", "rate": "60/min", "burst": 10.0, "from": "stored", "drawnBy": {"SendEmail": 1.0}
}  # fmt: skip


class RateView(Body):
    """A rate limit, and the task types that draw from it, with the units that each task takes."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RATE_VIEW]})

    name: str
    rate: str
    burst: float
    from_: Annotated[str, Field(alias="from")]
    drawn_by: dict[str, float]


class RateList(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"rateLimits": [_RATE_VIEW]}]})

    rate_limits: list[RateView]


class PauseAnswer(Body):
    """Whether everything is paused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": _PAUSE}]})

    paused: PauseView | None


class PurgeAnswer(Body):
    """`tasks` are cancelled, or would be in a dry run. Where it is not `done` the rest follows: the queue shows it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queue": "mail", "dryRun": False, "tasks": 12, "done": True}]}
    )

    queue: str
    dry_run: bool
    tasks: int
    done: bool
