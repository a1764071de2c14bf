"""Who gets what: ready tasks to the workers of a pool that have a poll open and room."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from asyncproc.core.decision import PollReply
from asyncproc.core.events import Lease
from asyncproc.core.settings import CoreSettings
from asyncproc.core.streams import Lineup
from asyncproc.core.task import Task, TaskId
from asyncproc.core.workers import RunTimes, Worker

Claim = Callable[[Task, Worker, float], Lease]
"""Records that the task runs on the worker; the number is the estimated run time in seconds."""


class Pool:
    """Workers of one kind, and the queues they serve."""

    __slots__ = ("hungry", "isolation", "lineup", "name", "suspects", "workers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lineup = Lineup()
        self.workers: dict[str, Worker] = {}
        self.hungry: dict[str, Worker] = {}
        """Workers with an open poll, the longest waiting first. A dispatch looks at no others."""
        self.suspects: list[tuple[float, TaskId, Task]] = []
        """Ready tasks that were aboard when a worker died; each runs next with nobody beside it."""
        self.isolation: Worker | None = None
        """The worker that is emptied, and then kept, for suspects."""

    def suspect(self, task: Task) -> None:
        heappush(self.suspects, (task.rank, task.id, task))

    def clear(self, gone: set[TaskId]) -> None:
        """Suspect these no more; linear, for the rare case that the table disagrees."""
        self.suspects = [entry for entry in self.suspects if entry[1] not in gone]
        heapify(self.suspects)

    def sated(self, worker: Worker) -> None:
        """The worker has no poll open. Another one that has its name by now is left alone."""
        if self.hungry.get(worker.name) is worker:
            del self.hungry[worker.name]

    def forget(self, worker: Worker) -> None:
        self.workers.pop(worker.name, None)
        self.sated(worker)
        if self.isolation is worker:
            self.isolation = None


def dispatch(pool: Pool, run_times: RunTimes, settings: CoreSettings, claim: Claim) -> list[PollReply]:
    """Grant leases until tasks, polls or room run out. Every poll answered here is used up."""
    replies = _dispatch_suspects(pool, run_times, claim)
    head = pool.lineup.head()
    if head is None:
        return replies
    estimate_s = run_times.estimate(head[1].options.type)
    # Whoever is full keeps its poll parked, and must not count where the others share.
    hungry = [
        worker
        for worker in pool.hungry.values()
        if worker is not pool.isolation and worker.has_room(estimate_s, settings.prefetch_s, settings.max_held)
    ]
    ready = pool.lineup.ready()
    for waiting in range(len(hungry), 0, -1):
        worker = hungry[len(hungry) - waiting]
        # A fair share, rounded up: a few tasks are spread over the workers rather than heaped on the first.
        leases = _fill(pool.lineup, worker, -(-ready // waiting), run_times, settings, claim)
        ready -= len(leases)
        if leases:
            replies.append(_answer(pool, worker, leases))
        if ready <= 0:
            break
    return replies


def _fill(
    lineup: Lineup, worker: Worker, most: int, run_times: RunTimes, settings: CoreSettings, claim: Claim
) -> list[Lease]:
    leases: list[Lease] = []
    while len(leases) < most and (head := lineup.head()) is not None:
        stream, task = head
        estimate_s = run_times.estimate(task.options.type)
        if not worker.has_room(estimate_s, settings.prefetch_s, settings.max_held):
            break
        lineup.serve(stream)
        leases.append(claim(task, worker, estimate_s))
    return leases


def _dispatch_suspects(pool: Pool, run_times: RunTimes, claim: Claim) -> list[PollReply]:
    """One suspect at a time, on a worker that holds nothing else."""
    if pool.isolation is not None and pool.isolation.alone:
        return []
    if not pool.suspects:
        pool.isolation = None
        return []
    # One that is idle already spares the wait for the one that was told to finish first.
    idle = next((worker for worker in pool.hungry.values() if not worker.held), None)
    if idle is None:
        if pool.isolation is None:
            present = (worker for worker in pool.workers.values() if worker.session)
            pool.isolation = min(present, key=lambda worker: len(worker.held), default=None)
        return []
    pool.isolation = idle
    task = heappop(pool.suspects)[2]
    lease = claim(task, idle, run_times.estimate(task.options.type))
    return [_answer(pool, idle, [lease])]


def _answer(pool: Pool, worker: Worker, leases: list[Lease]) -> PollReply:
    poll = worker.take_poll()
    if poll is None:
        raise AssertionError(f"{worker.name} was offered leases without a poll to carry them")
    if not worker.polls:
        pool.sated(worker)
    return PollReply(poll.ticket, leases)
