"""The number that orders ready tasks: lower runs sooner."""

from typing import Final

STRICT_AGING_S: Final = 1e10
"""What `aging: off` means: no wait that can happen is worth a level of priority."""

MIN_PRIORITY: Final = -100
MAX_PRIORITY: Final = 100


def to_micros(instant: float) -> float:
    """The instant as Postgres keeps it. Rows of the same microsecond would otherwise stand in one order in memory and
    in another on disk, and one that lies between the two is never paged in."""
    return round(instant, 6)


def micros_until(instant: float) -> float:
    """The same, and never after the instant: what is ready now must not seem to be due within the microsecond."""
    nearest = to_micros(instant)
    return nearest if nearest <= instant else to_micros(nearest - 1e-6)


def rank(ready_at: float, priority: int, aging_s: float) -> float:
    """Seconds; `aging_s` is how long a wait is worth one level of priority.

    All tasks age at the same pace, so the order of two waiting tasks never changes: no re-sorting, no starvation, and
    the same number orders the rows on disk.
    """
    return ready_at - priority * aging_s
