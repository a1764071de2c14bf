"""The rules that operators set at run time: a snapshot, replaced as a whole whenever one of them changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Overflow(StrEnum):
    """What becomes of a new task where as many wait as may."""

    WAIT = "wait"
    """It waits too: there is no bound."""
    REJECT = "reject"
    """Whoever enqueues it is refused, with all of the request; where nobody can be told it is cancelled."""
    CANCEL_OLDEST = "cancelOldest"
    CANCEL_NEWEST = "cancelNewest"


@dataclass(frozen=True, slots=True)
class QueueRules:
    """How one queue is served."""

    weight: int = 1
    """Its share of the workers while all queues have work, in relation to the weights of the others."""
    aging_s: float = 60.0
    """Seconds of waiting that are worth one level of priority."""
    pool: str | None = None
    """None: the pool that the configuration gives it."""
    max_running: int | None = None
    max_running_per_key: int | None = None
    """For each concurrency key; None is one."""
    fairness_weights: Mapping[str, float] = field(default_factory=dict)
    """Of the fairness keys that do not weigh 1."""
    max_waiting: int | None = None
    max_waiting_per_key: int | None = None
    """For each concurrency key."""
    overflow: Overflow = Overflow.REJECT

    @property
    def is_bounded(self) -> bool:
        """New tasks may find no room."""
        bounds = self.max_waiting is not None or self.max_waiting_per_key is not None
        return bounds and self.overflow is not Overflow.WAIT

    def weight_of(self, fairness_key: str) -> float:
        return self.fairness_weights.get(fairness_key, 1.0)


@dataclass(frozen=True, slots=True)
class TypeRules:
    max_running: int | None = None
    draws: tuple[tuple[str, float], ...] = ()
    """Rate limits, and how many units of each one task takes."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket that fills by `per_s` units a second up to `burst`."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing more begins; what runs goes on."""

    scope: str
    """`all`, `queue` or `type`."""
    name: str
    """Of the queue or type; empty for all."""
    until: float = 0.0
    """An instant; 0 is until resumed."""
    reason: str = ""
    by: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Rules:
    queues: Mapping[str, QueueRules] = field(default_factory=dict)
    """Of the queues that have their own."""
    types: Mapping[str, TypeRules] = field(default_factory=dict)
    rates: Mapping[str, RateLimit] = field(default_factory=dict)
    pauses: tuple[Pause, ...] = ()
    default: QueueRules = field(default_factory=QueueRules)
    pool_of: Mapping[str, str] = field(default_factory=dict)
    """Queue to pool, for the queues that a pool names."""
    draining: frozenset[str] = frozenset()
    """Queues that take no new tasks: for schedules alone, all others are told by whoever takes the tasks."""

    def queue(self, name: str) -> QueueRules:
        return self.queues.get(name, self.default)
