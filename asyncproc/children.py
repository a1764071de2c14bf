"""What a task may say of the tasks that it enqueues. All of it raises `ValueError` for what no task can have."""

import re
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.task import MAX_DELAY_S, MAX_KEY, NO_TERMS, QUEUE_NAME, Terms

_QUEUE_NAME: Final = re.compile(QUEUE_NAME)


class ChildOptions(NamedTuple):
    """By the names of `Registry.options_for`; None leaves it to what is stored, the configuration and the type."""

    queue: str | None = None
    priority: int | None = None
    backoff_s: float | None = None
    timeout_s: float | None = None
    soft_timeout_s: float | None = None
    concurrency_key: str | None = None
    fairness_key: str | None = None
    affinity_key: str | None = None
    resources: str | None = None
    """As `shape.shape_text` has them."""


def check_options(queue: str | None, priority: int | None) -> None:
    """None leaves it to somebody else."""
    if queue is not None and (not isinstance(queue, str) or not _QUEUE_NAME.fullmatch(queue)):
        raise ValueError(f"queue is {queue!r:.100}: it must match {QUEUE_NAME}")
    if priority is not None and (type(priority) is not int or not MIN_PRIORITY <= priority <= MAX_PRIORITY):
        raise ValueError(f"priority is {priority!r:.100}: it must be an int from {MIN_PRIORITY} to {MAX_PRIORITY}")


def check_key(name: str, key: str | None) -> None:
    """None is without."""
    if key is not None and (not isinstance(key, str) or len(key) > MAX_KEY or "\x00" in key):
        raise ValueError(f"{name} is {key!r:.300}: it must be text of at most {MAX_KEY} characters, without NUL")


def seconds(name: str, value: timedelta | float, most_s: float) -> float:
    """A wait or a limit."""
    found = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(found, int | float) or not 0 <= found <= most_s:
        raise ValueError(f"{name} is {value!r:.100}: it must be between 0 and {most_s:.0f} seconds")
    return float(found)


def terms_of(
    now: float, ready_at: float, run_at: datetime | None, start_by: datetime | None, deadline: datetime | None
) -> Terms:
    """`ready_at` is when the task is ready as far as is known."""
    if run_at is start_by is deadline is None:
        return NO_TERMS
    run_at_s, start_by_s, deadline_s = (
        0.0 if at is None else _instant(name, at, now)
        for name, at in (("run_at", run_at), ("start_by", start_by), ("deadline", deadline))
    )
    earliest = max(ready_at, run_at_s)
    if start_by is not None and start_by_s < earliest:
        raise ValueError(f"start_by is {start_by}: it must not be before the task is ready")
    if deadline is not None and deadline_s < max(earliest, start_by_s):
        raise ValueError(f"deadline is {deadline}: it must not be before the task may begin")
    return Terms(start_by_s, deadline_s, run_at=run_at_s)


def _instant(name: str, at: datetime, now: float) -> float:
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ValueError(f"{name} is {at!r:.100}: it must be a datetime with a time zone")
    if not 0 < at.timestamp() <= now + MAX_DELAY_S:
        raise ValueError(f"{name} is {at}: it must be within the next {MAX_DELAY_S / 86_400:.0f} days")
    return at.timestamp()
