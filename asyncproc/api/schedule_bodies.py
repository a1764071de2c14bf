"""What travels over HTTP about schedules."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.config import JsonDict

from asyncproc.api.body import BodyRefused, problems_of, refuse
from asyncproc.api.parsing import Asked, Instant
from asyncproc.api.queue_bodies import PauseView
from asyncproc.core.schedule import CatchUp, Kind, Outcome, Overlap
from asyncproc.plans import ScheduleSettings
from asyncproc.sections import Name
from asyncproc.wire import Body, Problem

_EXAMPLE: Final[JsonDict] = {
    "taskType": "GenerateReport",
    "payload": {"sendTo": ["ada@example.org"]},
    "cron": "30 9 * * MON-FRI",
    "timeZone": "Europe/Berlin",
    "overlap": "skip",
}


class NewScheduleBody(ScheduleSettings):
    """A schedule: which task is made, and when, by `cron` or `every`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "morning-report", **_EXAMPLE},
                {"name": "pulse", "taskType": "CPUProcess", "payload": {"processType": "pulse"}, "every": "15m"},
            ]
        }
    )

    name: Name


class SchedulePatch(BaseModel):
    """Any fields of a schedule; null takes one back. `cron` takes `every` back and the other way round."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"cron": "0 8 * * *"}, {"every": "1h", "priority": None}]}
    )


class BackfillBody(Asked):
    """The ticks from the first instant on and before the second one, which is not to come. Each makes a task, whether
    there was one at that time or not."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"from": "2026-11-01T00:00:00Z", "to": "2026-11-08T00:00:00Z", "dryRun": True}]
        },
        alias_generator=lambda name: {"from_": "from", "to": "to", "dry_run": "dryRun"}[name],
    )

    from_: Instant
    to: Instant
    dry_run: bool = False
    """Only count the ticks."""


PARSED: Final = (NewScheduleBody, SchedulePatch, BackfillBody)
"""Bodies that are parsed by this API and not by its framework."""


class TickView(Body):
    """A tick: `outcome` is `task` where a task was made, `waiting` where it will be made once the one before it has
    ended, `skipped` where that one had not ended, `missed` where from this tick on nobody was there for it, `drained`
    where its queue took no new tasks."""

    due_at: datetime
    kind: Kind
    """`tick` for one of the clock; `trigger` and `backfill` were asked for."""
    outcome: Outcome
    task_id: str | None
    decided_at: datetime


_VIEW: Final[JsonDict] = {
    "name": "morning-report",
    **_EXAMPLE,
    "every": None,
    "catchUp": "last",
    "catchUpWithin": "24h",
    "instantField": None,
    "queue": None,
    "priority": None,
    "backOffDuration": None,
    "timeout": None,
    "softTimeout": None,
    "concurrencyKey": None,
    "fairnessKey": None,
    "affinityKey": None,
    "resources": None,
    "from": "stored",
    "paused": None,
    "next": ["2026-11-30T09:30:00+01:00", "2026-12-01T09:30:00+01:00"],
    "ticks": [
        {
            "dueAt": "2026-11-27T08:30:00Z",
            "kind": "tick",
            "outcome": "task",
            "taskId": "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7",
            "decidedAt": "2026-11-27T08:30:00.002Z",
        }
    ],
    "problem": None,
}


class ScheduleView(Body):
    """A schedule, its next ticks and its last ones."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VIEW]})

    name: str
    task_type: str
    payload: dict[str, Any]
    cron: str | None
    every: str | None
    time_zone: str
    overlap: Overlap
    catch_up: CatchUp
    catch_up_within: str
    instant_field: str | None
    queue: str | None
    priority: int | None
    back_off_duration: str | None
    timeout: str | None
    soft_timeout: str | None
    concurrency_key: str | None
    fairness_key: str | None
    affinity_key: str | None
    resources: dict[str, float | str] | None
    from_: str
    """`config`, or `stored` where something was said at run time."""
    paused: PauseView | None
    next: list[datetime]
    """Empty where it is paused without an end."""
    ticks: list[TickView]
    """The newest first; one in a list of schedules, as of `next`."""
    problem: str | None = None
    """Why its tasks cannot run."""


class ScheduleList(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"schedules": [_VIEW]}]})

    schedules: list[ScheduleView]


class TriggerAnswer(Body):
    """The id of the task. Where the schedule says `overlap: queue` it is made once the one before it has ended."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "morning-report", "taskId": "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7"}]}
    )

    name: str
    task_id: str


class BackfillAnswer(Body):
    """`ticks` are made up for, or would be in a dry run."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "morning-report", "dryRun": True, "ticks": 5}]})

    name: str
    dry_run: bool
    ticks: int


def refused(error: ValidationError) -> BodyRefused:
    return refuse(list(_problems(error)))


def _problems(error: ValidationError) -> Iterator[Problem]:
    found = error.errors(include_url=False, include_input=False)
    for item, problem in zip(found, problems_of(found), strict=True):
        if item["type"] == "extra_forbidden":
            keys = ", ".join(info.alias or name for name, info in ScheduleSettings.model_fields.items())
            problem.message = f"is not known: allowed are {keys}"
        if not item["loc"] and item["type"] == "value_error":
            problem.field = "cron"  # the one rule that is about two fields
        yield problem
