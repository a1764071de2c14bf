"""Who acts in a history: workers with what they hold, and the ledger of what really happened."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from asyncproc.core.events import Outcome
from asyncproc.core.task import TaskId


@dataclass
class Holding:
    """A lease aboard a worker."""

    lease: int
    attempt: int
    type: str
    started: bool = False
    outcome: Outcome | None = None


@dataclass
class SimWorker:
    name: str
    pool: str
    concurrency: int
    alive: bool = True
    session: int | None = None
    registering: int | None = None
    calls: dict[int, list[tuple[TaskId, int]]] = field(default_factory=dict)
    """Polls without an answer, with the leases whose outcomes they carry."""
    held: dict[TaskId, Holding] = field(default_factory=dict)

    back: list[tuple[TaskId, int]] = field(default_factory=list)
    """Leases that were called back before they began, to be reported with the next call."""

    def hang_up(self) -> None:
        """Whatever is under way, its fate is unknown from here on."""
        self.session = self.registering = None
        self.calls.clear()


@dataclass
class Ledger:
    """What really happened."""

    acked: set[TaskId] = field(default_factory=set)
    runs: defaultdict[tuple[TaskId, int, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    """Workers that began this attempt, by task, revival and attempt."""
    lost: set[str] = field(default_factory=set)
    """Workers that died, or were said to have."""
    seen: Counter[str] = field(default_factory=Counter)
    """How often each kind of trouble came about."""
