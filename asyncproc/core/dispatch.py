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

    def discard(self, gone: set[TaskId]) -> None:
        """Forget these tasks; linear, for the rare case that the table disagrees."""
        self.suspects = [entry for entry in self.suspects if entry[1] not in gone]
        heapify(self.suspects)
        for stream in self.lineup:
            stream.ready.discard(gone)

    def forget(self, worker: Worker) -> None:
        self.workers.pop(worker.name, None)
        self.hungry.pop(worker.name, None)
        if self.isolation is worker:
            self.isolation = None


def dispatch(pool: Pool, run_times: RunTimes, settings: CoreSettings, claim: Claim) -> list[PollReply]:
    """Grant leases until tasks, polls or room run out. Every poll answered here is used up."""
    replies = _dispatch_suspects(pool, run_times, claim)
    if not pool.hungry or pool.lineup.head() is None:
        return replies
    ready = pool.lineup.ready()
    hungry = [worker for worker in pool.hungry.values() if worker is not pool.isolation]
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
    if not pool.suspects:
        if pool.isolation is not None and not pool.isolation.held:
            pool.isolation = None
        return []
    if pool.isolation is None:
        pool.isolation = min(pool.workers.values(), key=lambda worker: len(worker.held), default=None)
    worker = pool.isolation
    if worker is None or worker.held or not worker.polls:
        return []
    task = heappop(pool.suspects)[2]
    lease = claim(task, worker, run_times.estimate(task.options.type))
    return [_answer(pool, worker, [lease])]


def _answer(pool: Pool, worker: Worker, leases: list[Lease]) -> PollReply:
    poll = worker.take_poll()
    if poll is None:
        raise AssertionError(f"{worker.name} was offered leases without a poll to carry them")
    if not worker.polls:
        pool.hungry.pop(worker.name, None)
    return PollReply(poll.ticket, leases)
