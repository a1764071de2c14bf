"""Tasks of one type that a worker runs in one call: they take one slot together, and end each for itself."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from asyncproc.core.lanes import Lane

MAX_BATCH: Final = 1_000
"""As many leases as a worker may hold."""
MAX_WAIT_S: Final = 60.0


class Batching(NamedTuple):
    """How a worker batches a type: so many tasks a call, and how long the first of them waits for the others."""

    size: int
    wait_s: float


@dataclass(slots=True, eq=False)
class Batch:
    """What a worker is thought to run in one call. It groups what it holds in the order in which that comes, so that it
    makes the same of it, but for what arrives when the wait is over there."""

    type: str
    room: int
    opened_at: float
    until: float
    left: int = 0
    """Tasks that have not ended."""
    late: bool = False
    """Somebody was sent after it, and may have come too late: then it waits there for a slot that nobody counts."""
    lanes: "list[Lane]" = field(default_factory=list)
    """Where its tasks came from."""

    def takes(self, now: float) -> bool:
        return self.room > 0 and now <= self.until
