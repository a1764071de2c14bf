"""Workers of one kind, the queues they serve, and who of them can take what."""

from heapq import heapify, heappush

from asyncproc.core.affinity import Homes
from asyncproc.core.dangers import runs_alone
from asyncproc.core.streams import Stream
from asyncproc.core.task import Task, TaskId
from asyncproc.core.turns import Turns
from asyncproc.core.workers import Worker


class Pool:
    """Workers with an open poll stand where a dispatch finds them without looking at the others.

    Thousands wait at a time: whoever changes a worker says so by `place`, and no step goes over all of them.
    """

    __slots__ = (
        "_max_held", "_prefetch_s", "ahead", "free", "gathering", "homes", "idle", "isolation", "laden", "lineup",
        "loners", "name", "suspects", "workers",
    )  # fmt: skip

    def __init__(self, name: str, prefetch_s: float, max_held: int, affinity_s: float) -> None:
        self.name = name
        self.lineup: Turns[Stream] = Turns()
        self._prefetch_s = prefetch_s
        self._max_held = max_held
        self.workers: dict[str, Worker] = {}
        self.idle: dict[str, Worker] = {}
        """Those that hold nothing, the longest waiting first."""
        self.free: dict[str, Worker] = {}
        """Those that run something and have a slot free."""
        self.ahead: dict[str, Worker] = {}
        """Those without a free slot that may take short work ahead. One is left out once it had no room: only its own
        next report can make some."""
        self.gathering: dict[str, Worker] = {}
        """Those that wait with a batch for others to join it."""
        self.laden: dict[str, Worker] = {}
        """Workers, with or without a poll, that hold more than they can start at once, by their last sign of progress:
        the one that has gone longest without comes first, give or take the time of an overrun."""
        self.suspects: list[tuple[float, TaskId, Task]] = []
        """Ready tasks that were aboard when a worker died: they go before all others."""
        self.loners: list[tuple[float, TaskId, Task]] = []
        """Those that were aboard again; each runs with nobody beside it."""
        self.homes = Homes(self, affinity_s)
        self.isolation: Worker | None = None
        """The worker that is emptied, and then kept, for loners."""

    def startable(self) -> int:
        """Ready tasks in memory that no gate holds up, as far as is known."""
        return sum(stream.startable for stream in self.lineup)

    def place(self, worker: Worker) -> None:
        """Find the worker's place anew, after its polls or what it holds have changed."""
        if self.workers.get(worker.name) is not worker:
            # It was lost, and may have come back under its name since.
            return
        theirs = self._place_of(worker)
        for place in (self.idle, self.free, self.ahead):
            if place is theirs:
                place.setdefault(worker.name, worker)
            else:
                place.pop(worker.name, None)
        if worker.open and worker.polls and not (worker.leaving or worker.alone or worker is self.isolation):
            self.gathering[worker.name] = worker
        elif self.gathering:
            self.gathering.pop(worker.name, None)
        if worker.is_laden():
            self.laden.setdefault(worker.name, worker)
        else:
            self.laden.pop(worker.name, None)

    def _place_of(self, worker: Worker) -> dict[str, Worker] | None:
        if not worker.polls or worker is self.isolation or worker.alone or worker.leaving:
            return None
        if not worker.held:
            return self.idle
        if worker.has_slot(self._max_held):
            return self.free
        return self.ahead if worker.has_room_ahead(self._prefetch_s, self._max_held) else None

    def progressed(self, worker: Worker, now: float) -> None:
        """A slot of the worker began or ended something."""
        worker.progress_at = now
        self.to_the_back(worker)

    def to_the_back(self, worker: Worker) -> None:
        if self.laden.pop(worker.name, None) is not None:
            self.laden[worker.name] = worker

    def isolate(self, worker: Worker | None) -> None:
        before, self.isolation = self.isolation, worker
        for changed in (before, worker):
            if changed is not None:
                self.place(changed)

    def suspect(self, task: Task) -> None:
        heappush(self.loners if runs_alone(task.losses) else self.suspects, (task.rank, task.id, task))

    def clear(self, gone: set[TaskId]) -> None:
        """Suspect these no more; linear, for the rare case that the table disagrees."""
        for waiting in (self.suspects, self.loners):
            if any(entry[1] in gone for entry in waiting):
                waiting[:] = [entry for entry in waiting if entry[1] not in gone]
                heapify(waiting)

    def forget(self, worker: Worker) -> None:
        for place in (self.workers, self.idle, self.free, self.ahead, self.gathering, self.laden):
            place.pop(worker.name, None)
        if self.isolation is worker:
            self.isolation = None
