"""What the core is told once, by the shell that read the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from asyncproc.core.steering import QueueRules

LARGE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class CoreSettings:
    queues: Mapping[str, QueueRules] = field(default_factory=dict)
    """Rules of the queues that have their own."""
    default_rules: QueueRules = field(default_factory=QueueRules)
    pool_of: Mapping[str, str] = field(default_factory=dict)
    """Queue to pool, for queues that a pool names; all others are served by `default_pool`."""
    default_pool: str = "default"
    window: int = 10_000
    """Tasks of one queue held in memory."""
    window_bytes: int = 64 * 1024 * 1024
    """Bytes of payload of one queue held in memory."""
    large_bytes: int = LARGE_BYTES
    """A payload of more bytes is not held in memory but read for each lease."""
    lease_bytes: int = 64 * 1024 * 1024
    """Bytes of large payloads granted in one step, or a single one that is larger."""
    prefetch_s: float = 0.035
    """A task shorter than this may be leased ahead to a worker without a free slot, if it will begin there within this
    time, both judged by recent run times. More of it costs a better task its place: it comes behind what is leased."""
    overrun_s: float = 0.1
    """A worker that holds more than it can start at once and makes no progress for this long is held up by tasks that
    are longer than was thought: what it has not begun is called back."""
    max_held: int = 1000
    """Leases one worker may hold."""
    affinity_s: float = 0.5
    """A task waits no longer than this for the worker that ran its affinity key last, while others have room."""
    poll_s: float = 10.0
    """An unanswered poll is answered with nothing after this long, as a sign of life to both sides."""
    longest_poll_s: float = 120.0
    """The same for a worker that holds nothing, where many are registered and all of them are to be answered."""
    idle_polls_a_second: float = 10.0
    """About so many polls are answered with nothing while no worker has anything to do. Each costs the QueueActor a
    call of Ray's, which is a hundred times what the core does for it."""
    silence_s: float = 20.0
    """A worker that has no poll open and is not heard from for this long counts as lost."""

    tick_grace_s: float = 60.0
    """A tick of a schedule that is no later than this is on time; what becomes of later ones the schedule says."""

    def pool(self, queue: str) -> str:
        return self.pool_of.get(queue, self.default_pool)
