"""What can be said of a queue, a task type and a rate limit: in the configuration, through REST, and in the table.

None is "not said": what is said with less force holds then.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationError, WithJsonSchema
from pydantic import model_validator as validator
from pydantic_core import from_json, to_json

from asyncproc.core.duration import format_duration
from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.retry import MAX_ATTEMPTS
from asyncproc.core.steering import Overflow, Pause
from asyncproc.core.task import MAX_KEY, MAX_TIMEOUT_S, MAX_TYPE_NAME
from asyncproc.pool_settings import PoolRuleSettings
from asyncproc.sections import (
    AgingSeconds,
    BackOffSettings,
    KeptSeconds,
    Name,
    Section,
    aging_text,
    duration_schema,
    kept_text,
    seconds,
)

log = logging.getLogger(__name__)

UNLIMITED: Final = 0
"""What `off` means for a limit."""
MAX_LIMIT: Final = 10_000_000
MAX_WAITING: Final = 100_000
"""They are counted in the table where a queue is nearly full."""
MAX_WEIGHTS: Final = 1_000
MAX_DRAWS: Final = 10
MAX_UNITS: Final = 1e6
_UNIT_S: Final = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0,
                  "hour": 3600.0, "d": 86_400.0, "day": 86_400.0}  # fmt: skip
_RATE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*/\s*([a-z]+)")


def _limit(value: object) -> object:
    if value is False or value == "off":
        return UNLIMITED
    if value == UNLIMITED:
        raise ValueError("must be 1 or more, or off")
    return value


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("contains NUL, which Postgres cannot store")
    return text


def rate_per_s(text: str) -> float:
    """Units a second of `60/min`. Raises `ValueError`."""
    found = _RATE.fullmatch(text)
    unit_s = _UNIT_S.get(found[2]) if found else None
    if found is None or unit_s is None or not float(found[1]):
        raise ValueError("must be a rate such as 100/s, 60/min, 5/h or 1000/day")
    return float(found[1]) / unit_s


def _rate(text: str) -> str:
    rate_per_s(text)
    return text


Limit = Annotated[
    int,
    BeforeValidator(_limit),
    Field(ge=UNLIMITED, le=MAX_LIMIT),
    PlainSerializer(lambda limit: limit or "off", return_type=int | str),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, {"const": "off"}]}),
]
Aging = Annotated[AgingSeconds, PlainSerializer(aging_text, return_type=str)]
TimeLimit = Annotated[
    float,
    BeforeValidator(seconds),
    Field(ge=0, le=MAX_TIMEOUT_S, allow_inf_nan=False),
    PlainSerializer(format_duration, return_type=str),
    duration_schema("5m"),
]
WaitingLimit = Annotated[
    int,
    BeforeValidator(_limit),
    Field(ge=UNLIMITED, le=MAX_WAITING),
    PlainSerializer(lambda limit: limit or "off", return_type=int | str),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_WAITING}, {"const": "off"}]}),
]
Kept = Annotated[KeptSeconds, PlainSerializer(kept_text, return_type=str), duration_schema("7d")]
PlainText = Annotated[str, AfterValidator(_without_nul)]
FairnessKey = Annotated[PlainText, Field(min_length=1, max_length=MAX_KEY)]
TypeName = Annotated[PlainText, Field(min_length=1, max_length=MAX_TYPE_NAME)]
Weight = Annotated[float, Field(ge=0.001, le=1_000, allow_inf_nan=False)]
Units = Annotated[float, Field(gt=0, le=MAX_UNITS, allow_inf_nan=False)]


class TaskRuleSettings(Section):
    """What tasks are enqueued with where they do not say it themselves."""

    priority: int | None = Field(default=None, ge=MIN_PRIORITY, le=MAX_PRIORITY)
    """Higher is sooner."""
    max_task_retry: int | None = Field(default=None, ge=0, lt=MAX_ATTEMPTS)
    """Further attempts after the first one failed."""
    back_off: BackOffSettings | None = None
    timeout: TimeLimit | None = None
    """How long one attempt may take; `0s` is without limit."""
    soft_timeout: TimeLimit | None = None
    """When a running attempt is told to come to an end; `0s` is never."""


class QueueRuleSettings(TaskRuleSettings):
    weight: int | None = Field(default=None, ge=1, le=1_000)
    """Its share of the workers, in relation to the weights of the other queues of its pool."""
    aging: Aging | None = None
    """How long a wait is worth one level of priority; `off` is strict priority."""
    pool: Name | None = None
    """The pool whose workers serve it."""
    max_running: Limit | None = None
    """Tasks of this queue that run at once; `off` is without limit."""
    max_running_per_key: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    """Tasks that run at once of those that share a `concurrencyKey`."""
    fairness_weights: dict[FairnessKey, Weight] | None = Field(default=None, max_length=MAX_WEIGHTS)
    """Shares of fairness keys that do not weigh 1."""
    max_waiting: WaitingLimit | None = None
    """Tasks of this queue that may wait; `off` is without limit. Those that wait for other tasks do not count."""
    max_waiting_per_key: WaitingLimit | None = None
    """The same of those that share a `concurrencyKey`."""
    overflow: Overflow | None = None
    """What becomes of a new task where as many wait as may: `reject`, `cancelOldest`, `cancelNewest`, or `wait`."""
    retention_succeeded: Kept | None = None
    """How long its succeeded tasks are kept at least, from `1h` on; `off` keeps them for ever."""
    retention_failed: Kept | None = None
    retention_cancelled: Kept | None = None


class TypeRuleSettings(TaskRuleSettings):
    max_running: Limit | None = None
    """Tasks of this type that run at once, whatever their queue; `off` is without limit."""
    rate_limits: dict[Name, Units] | None = Field(default=None, max_length=MAX_DRAWS)
    """Rate limits that its tasks draw from, and how many units each takes."""


class RateLimitSettings(Section):
    """A token bucket; several task types may draw from it."""

    rate: Annotated[str, AfterValidator(_rate), Field(max_length=40)]
    """Such as `60/min`."""
    burst: float | None = Field(default=None, ge=1, le=MAX_UNITS * 1_000, allow_inf_nan=False)
    """What can be drawn at once after a pause; without it what comes in a second, at least 1."""

    @validator(mode="before")
    @classmethod
    def _rate_alone(cls, value: Any) -> Any:
        return {"rate": value} if isinstance(value, str) else value

    @property
    def per_s(self) -> float:
        return rate_per_s(self.rate)

    @property
    def burst_units(self) -> float:
        return max(1.0, self.per_s) if self.burst is None else self.burst


@dataclass(frozen=True, slots=True)
class Stored:
    """What operators said at run time, as one version of the tables has it."""

    version: int = 0
    queues: Mapping[str, QueueRuleSettings] = field(default_factory=dict)
    types: Mapping[str, TypeRuleSettings] = field(default_factory=dict)
    rates: Mapping[str, RateLimitSettings] = field(default_factory=dict)
    pools: Mapping[str, PoolRuleSettings] = field(default_factory=dict)
    pauses: tuple[Pause, ...] = ()
    draining: Mapping[str, float] = field(default_factory=dict)
    """Queues that take no new tasks, each with the instant since when."""


S = TypeVar("S", bound=Section)


def to_document(rules: Section) -> bytes:
    """What was said, as JSON."""
    return to_json(rules.model_dump(mode="json", by_alias=True, exclude_unset=True))


def from_document(kind: type[S], name: str, text: str) -> S | None:
    """What was stored, without the keys that this release does not know or does not take: another one wrote them."""
    document = from_json(text)
    while True:
        try:
            return kind.model_validate(document)
        except ValidationError as error:
            unfit = {item["loc"][0] for item in error.errors() if item["loc"]} & document.keys()
            log.warning("stored settings of %s: %s cannot be used", name, ", ".join(map(str, unfit)) or "all")
            if not unfit:
                return None
            document = {key: value for key, value in document.items() if key not in unfit}
