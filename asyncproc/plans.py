"""Schedules as the configuration, REST and the tables have them."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator
from pydantic_core import from_json, to_json

from asyncproc.core.duration import format_duration, parse_duration
from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.retry import MAX_BACKOFF_S
from asyncproc.core.schedule import CatchUp, Overlap, Plan, Schedule
from asyncproc.core.steering import Pause
from asyncproc.core.task import MAX_KEY, Options
from asyncproc.cron import Cron, Every, zone
from asyncproc.rules import PlainText, TimeLimit, TypeName
from asyncproc.sections import Name, Resources, Section, duration_schema, seconds

MIN_INTERVAL_S: Final = 1.0
MAX_INTERVAL_S: Final = 366 * 86_400.0
MAX_CATCH_UP_S: Final = 31 * 86_400.0
MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of the payload of a schedule: it is in memory all the time."""
_EXAMPLE_INSTANT: Final = 1_800_000_000.0
OTHER_INSTANT: Final = 1_800_086_461.0
_MADE_KEYS: Final = "$keys"

Keys: TypeAlias = tuple[str | None, str | None]
"""A concurrency key and a fairness key."""
NO_KEYS: Final[Keys] = (None, None)


def _cron(text: str) -> str:
    Cron(text)
    return text


def _zone(name: str) -> str:
    zone(name)
    return name


def _back_off(text: str) -> str:
    if not 0 <= parse_duration(text) <= MAX_BACKOFF_S:
        raise ValueError(f"must be between 0s and {format_duration(MAX_BACKOFF_S)}")
    return text


def _payload(value: dict[str, Any]) -> dict[str, Any]:
    if len(to_json(value)) > MAX_PAYLOAD:
        raise ValueError(f"has more than {MAX_PAYLOAD} bytes, the most that a schedule may carry")
    return value


Interval = Annotated[
    float,
    BeforeValidator(seconds),
    Field(ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S, allow_inf_nan=False),
    PlainSerializer(format_duration, return_type=str),
    duration_schema("15m"),
]
Within = Annotated[
    float,
    BeforeValidator(seconds),
    Field(gt=0, le=MAX_CATCH_UP_S, allow_inf_nan=False),
    PlainSerializer(format_duration, return_type=str),
    duration_schema("24h"),
]
_WHEN: Final = frozenset({"cron", "every", "timeZone"})


class ScheduleSettings(Section):
    """Which task is made, and when."""

    task_type: TypeName
    payload: Annotated[dict[str, Any], AfterValidator(_payload)] = Field(default_factory=dict)
    cron: Annotated[str, Field(max_length=200), AfterValidator(_cron)] | None = None
    """Minute, hour, day of month, month, day of week; or `@daily` and the like."""
    every: Interval | None = None
    """In place of `cron`: a duration; ticks are its multiples since 1970, so `1h` is each full hour of UTC."""
    time_zone: Annotated[str, Field(max_length=60), AfterValidator(_zone)] = "UTC"
    """Whose clocks `cron` goes by."""
    overlap: Overlap = Overlap.ALLOW
    """What a tick does while the last task of the schedule has not ended: `allow` makes its task, `skip` makes none,
    `queue` makes it as soon as that one has ended."""
    catch_up: CatchUp = CatchUp.LAST
    """Of ticks that were missed while the system was down: `none`, the `last` one, or `all` are made up for."""
    catch_up_within: Within = 86_400.0
    """How old a tick is at most that `all` makes up for."""
    instant_field: Annotated[PlainText, Field(min_length=1, max_length=200)] | None = None
    """The field of the payload that gets the instant of the tick."""
    queue: Name | None = None
    priority: int | None = Field(default=None, ge=MIN_PRIORITY, le=MAX_PRIORITY)
    back_off_duration: Annotated[str, Field(max_length=64), AfterValidator(_back_off)] | None = None
    timeout: TimeLimit | None = None
    soft_timeout: TimeLimit | None = None
    concurrency_key: Annotated[PlainText, Field(max_length=MAX_KEY)] | None = None
    fairness_key: Annotated[PlainText, Field(max_length=MAX_KEY)] | None = None
    affinity_key: Annotated[PlainText, Field(max_length=MAX_KEY)] | None = None
    resources: Resources | None = None

    @model_validator(mode="after")
    def _one_plan(self) -> "ScheduleSettings":
        if (self.cron is None) == (self.every is None):
            raise ValueError(
                "cron, every: name one of the two, a cron such as 30 9 * * MON-FRI or a duration such as 15m"
            )
        return self

    def plan(self) -> Plan:
        return Cron(self.cron, self.time_zone) if self.cron is not None else Every(self.every or 0.0, self.time_zone)

    def example(self, instant: float = _EXAMPLE_INSTANT) -> dict[str, Any]:
        """A payload as a task of it gets."""
        if self.instant_field is None:
            return self.payload
        return {**self.payload, self.instant_field: from_json(self.plan().text(instant))}

    def plain_payload(self) -> dict[str, Any]:
        """Without what each tick puts in."""
        return {key: value for key, value in self.payload.items() if key != self.instant_field}


class StoredSchedule(NamedTuple):
    """What was said at run time; of a schedule that the configuration has, what differs."""

    version: int
    settings: Mapping[str, Any]
    pause: Pause | None
    keys: Keys = NO_KEYS
    """What its type made of its payload when it was stored: who makes the tasks has no code of theirs."""

    @classmethod
    def of(cls, name: str, version: int, settings: str | bytes, pause: str | None) -> "StoredSchedule":
        found = None if pause is None else Pause("schedule", name, **from_json(pause))
        said = from_json(settings)
        concurrency_key, fairness_key = said.pop(_MADE_KEYS, NO_KEYS)
        return cls(version, said, found, (concurrency_key, fairness_key))


def to_document(said: Mapping[str, Any], keys: Keys) -> bytes:
    """As it is stored."""
    return to_json({**said, _MADE_KEYS: keys} if said and keys != NO_KEYS else said)


def pause_document(pause: Pause, for_s: float, now: float) -> bytes:
    until = now + for_s if for_s else pause.until
    return to_json({"until": until, "reason": pause.reason, "by": pause.by, "since": now})


def settings_of(configured: ScheduleSettings | None, stored: StoredSchedule | None) -> ScheduleSettings:
    """What holds for a schedule. Raises `ValidationError`: another release may have written it."""
    said = {} if stored is None else stored.settings
    if configured is None or not said:
        return configured if configured is not None and not said else ScheduleSettings.model_validate(said)
    plain = configured.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if said.keys() & {"cron", "every"}:
        plain = {key: value for key, value in plain.items() if key not in _WHEN}
    return ScheduleSettings.model_validate({**plain, **said})


def to_schedule(name: str, settings: ScheduleSettings, pause: Pause | None, options: Options) -> Schedule:
    """As the core takes it."""
    plan, stopped = settings.cron or format_duration(settings.every or 0.0), pause and (pause.since, pause.until)
    return Schedule(
        name,
        settings.plan(),
        options,
        to_json(settings.plain_payload()),
        settings.overlap,
        settings.catch_up,
        settings.catch_up_within,
        b"" if settings.instant_field is None else to_json(settings.instant_field),
        None if pause is None else pause.until,
        f"{plan} {settings.time_zone} {stopped or ''}",
    )
