"""What the core knows of a worker: what it holds, and the polls through which it can be reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asyncproc.core.batches import Batch, Batching
from asyncproc.core.task import TaskId

if TYPE_CHECKING:
    from asyncproc.core.lanes import Lane

FLOOR_S: Final = 20e-6
"""No attempt costs a worker less than this, however short the user's code."""
WEIGHT_OF_NEWEST: Final = 0.2


class RunTimes:
    """Recent run time per task type, in seconds, as an exponential moving average."""

    __slots__ = ("_mean", "_unknown_s")

    def __init__(self, unknown_s: float) -> None:
        self._mean: dict[str, float] = {}
        self._unknown_s = unknown_s

    def observe(self, type_name: str, seconds: float) -> None:
        mean = self._mean.get(type_name)
        self._mean[type_name] = seconds if mean is None else mean + WEIGHT_OF_NEWEST * (seconds - mean)

    def known(self, type_name: str) -> float | None:
        return self._mean.get(type_name)

    def estimate(self, type_name: str) -> float:
        """A type that never ran counts as long, so that it is not prefetched."""
        return max(FLOOR_S, self._mean.get(type_name, self._unknown_s))


@dataclass(slots=True)
class Poll:
    ticket: int
    until: float
    """When it is answered at the latest."""
    reported: bool
    """It brought outcomes and is answered in the cycle that records them, with or without leases."""


@dataclass(slots=True)
class Worker:
    """One incarnation of a WorkerActor. A restarted process is another worker."""

    name: str
    pool: str
    concurrency: int
    session: int = 0
    """Number of its last registration; 0 for one that is only known from the rows it runs."""
    held: dict[TaskId, float] = field(default_factory=dict)
    """Leases granted and not yet recorded as ended, with what each counts: the estimated seconds, and for a long one
    the time that is filled ahead, for it blocks one slot and no other."""
    held_s: float = 0.0
    taken: int = 0
    """Slots that all of it takes, or will."""
    batching: Mapping[str, Batching] = field(default_factory=dict)
    """Types of which it takes several tasks in one call."""
    batches: dict[TaskId, Batch] = field(default_factory=dict)
    """Of each held task the batch that it is in."""
    open: dict[str, Batch] = field(default_factory=dict)
    """By type, the one that others may join."""
    late: int = 0
    """Batches that somebody may have come too late for."""
    missing: list[TaskId] = field(default_factory=list)
    """What its last registration did not name. Given back once the worker is seen to go by that registration."""
    leaving: bool = False
    """It said that it ends, and is given nothing more."""
    alone: bool = False
    """It runs a suspect, and nothing is put beside that."""
    polls: list[Poll] = field(default_factory=list)
    progress_at: float = 0.0
    """When one of its slots was last known to begin or end something, or could be told to."""
    recalled_at: float = float("-inf")
    heard_at: float = 0.0
    patient: bool = False
    """It waits long for an answer while it holds nothing."""
    alarm_at: float = 0.0
    """The one alarm that counts; those of an earlier life of the name may still be pending."""

    def hold(self, task_id: TaskId, estimate_s: float, alone: bool) -> None:
        self.held[task_id] = estimate_s
        self.held_s += estimate_s
        self.taken += 1
        self.alone = self.alone or alone

    def put_together(self, task_id: TaskId, type_name: str, now: float, confined: bool = False) -> None:
        """The task that was just taken goes into a batch, and shares its slot; a confined one goes alone."""
        if confined:
            self.open.pop(type_name, None)  # a batch that waits was begun before the type was dangerous
            return
        batch = self.open.get(type_name)
        if batch is not None and batch.takes(now):
            self.taken -= 1
            if now > batch.opened_at and not batch.late:
                batch.late = True
                self.late += 1
        else:
            size, wait_s = self.batching[type_name]
            batch = self.open[type_name] = Batch(type_name, size, now, now + wait_s)
        batch.room -= 1
        batch.left += 1
        self.batches[task_id] = batch

    def note_lane(self, task_id: TaskId, lane: "Lane") -> None:
        batch = self.batches.get(task_id)
        if batch is not None and lane not in batch.lanes:
            batch.lanes.append(lane)

    def regroup(self, batching: Mapping[str, Batching], type_of: Callable[[TaskId], str]) -> None:
        """It is met in the midst of its work: nobody knows which of what it holds runs together."""
        self.batching = batching
        self.batches.clear()
        self.open.clear()
        self.taken = self.late = 0
        for task_id in self.held:
            self.taken += 1
            if (name := type_of(task_id)) in batching:
                self.put_together(task_id, name, 0.0)
        for batch in {id(batch): batch for batch in self.batches.values()}.values():
            batch.late = True
            self.late += 1
        self.open.clear()

    def close_batches(self, now: float) -> None:
        """Those that are full, or that nobody is waited for."""
        for batch in [batch for batch in self.open.values() if batch.until <= now or not batch.room]:
            del self.open[batch.type]

    def release(self, task_id: TaskId) -> None:
        estimate_s = self.held.pop(task_id, None)
        if estimate_s is None:
            return
        if self.batches and (batch := self.batches.pop(task_id, None)) is not None:
            self._leave(batch)
        else:
            self.taken -= 1
        # Rounding must not leave a debt on an idle worker.
        self.held_s = self.held_s - estimate_s if self.held else 0.0
        self.alone = self.alone and bool(self.held)

    def _leave(self, batch: Batch) -> None:
        batch.left -= 1
        if batch.left:
            return
        self.taken -= 1
        self.late -= batch.late
        if self.open.get(batch.type) is batch:
            del self.open[batch.type]

    def has_room(self, estimate_s: float, prefetch_s: float, max_held: int) -> bool:
        """Free slots first; beyond them only what is short, and only what begins soon."""
        if self.alone:
            return False
        # As `has_slot` has it: a call would cost every task.
        if self.taken < self.concurrency and (not self.batches or self.has_slot(max_held)):
            return True
        return estimate_s < prefetch_s and self.has_room_ahead(prefetch_s, max_held)

    def has_slot(self, max_held: int) -> bool:
        """Batches may fill what it can hold before they fill its slots."""
        if self.taken >= self.concurrency:
            return False
        return not self.batches or len(self.held) < max(max_held, self.concurrency)

    def has_room_ahead(self, prefetch_s: float, max_held: int) -> bool:
        """Whether one more would begin soon, though no slot is free."""
        return len(self.held) < max_held and self.held_s < prefetch_s * self.concurrency

    def is_laden(self) -> bool:
        return self.taken > self.concurrency or self.late > 0

    def take_poll(self) -> Poll | None:
        """The poll to answer next: one that must be answered anyway before one that can stay parked."""
        if not self.polls:
            return None
        for index, poll in enumerate(self.polls):
            if poll.reported:
                return self.polls.pop(index)
        return self.polls.pop(0)
