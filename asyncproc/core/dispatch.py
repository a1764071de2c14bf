"""Who gets what: ready tasks to the workers of a pool that have a poll open and room."""

from collections.abc import Callable, Iterable
from itertools import islice

from asyncproc.core.backlog import Backlog
from asyncproc.core.decision import PollReply
from asyncproc.core.events import Lease
from asyncproc.core.expiry import is_over
from asyncproc.core.lanes import Lane
from asyncproc.core.pool import Pool
from asyncproc.core.recall import is_overrun
from asyncproc.core.settings import CoreSettings
from asyncproc.core.task import NO_TERMS, Task, TaskId
from asyncproc.core.workers import RunTimes, Worker

Claim = Callable[[Task, Worker, float], Lease]
"""Records that the task runs on the worker; the number is the estimated run time in seconds, as far as it counts."""


Expire = Callable[[Task], None]
"""Ends a task that is over instead of giving it out."""


class Dispatcher:
    """Grants leases until tasks, polls or room run out. Every poll answered here is used up."""

    def __init__(
        self, run_times: RunTimes, settings: CoreSettings, backlog: Backlog, claim: Claim, expire: Expire
    ) -> None:
        self._expire = expire
        self._backlog = backlog
        self._run_times = run_times
        self._settings = settings
        self._claim = claim
        self._bytes = 0
        self._estimated: Lane | None = None
        """The lane looked at last: mostly the next task is of the same, and its run time need not be looked up anew."""
        self._usual_s = 0.0
        self._at_home: dict[str, tuple[Worker, list[Lease]]] = {}
        """Workers that were given tasks for their affinity, and are not answered yet."""
        self.granted: list[Worker] = []
        """Who got something in this step."""
        self.is_cut = False
        """Something was left for the next step though there was room for it."""

    def begin(self) -> None:
        """A new step."""
        self._bytes, self.is_cut = 0, False
        self._estimated = None
        self.granted.clear()

    def dispatch(self, pool: Pool, now: float) -> list[PollReply]:
        if self._backlog.paused:
            return []
        replies = [*self._loners(pool), *self._suspects(pool)]
        if len(pool.homes):
            pool.homes.let_go_home(self._has_room)
        if pool.gathering:
            self._complete(pool, now, replies)
        if pool.idle or pool.free:
            # A worker takes a task at least: there is no need to look at more of them.
            most = pool.startable()
            able = [*islice(pool.idle.values(), most), *islice(pool.free.values(), most)]
            self._share_out(pool, able, len(pool.idle) + len(pool.free), now, replies)
        if pool.ahead:
            self._share_out(pool, self._early(pool, now), len(pool.ahead), now, replies)
        for worker, _ in list(self._at_home.values()):
            replies.append(self._answer(pool, worker, []))
        return replies

    def _early(self, pool: Pool, now: float) -> Iterable[Worker]:
        """Workers to give short work ahead, as long as short work is next."""
        for worker in list(islice(pool.ahead.values(), pool.startable())):
            lane = pool.lineup.head(now)
            if lane is None or self._estimate(lane, lane.best) >= self._settings.prefetch_s:
                return
            if is_overrun(worker, now, self._settings.overrun_s):
                del pool.ahead[worker.name]
            else:
                yield worker

    def _complete(self, pool: Pool, now: float, replies: list[PollReply]) -> None:
        """Batches that wait for company get it before others are begun."""
        for worker in list(pool.gathering.values()):
            worker.close_batches(now)
            leases = self._fill(pool, worker, 0, now)
            if leases:
                replies.append(self._answer(pool, worker, leases))
            else:
                pool.place(worker)

    def _share_out(
        self, pool: Pool, workers: Iterable[Worker], waiting: int, now: float, replies: list[PollReply]
    ) -> None:
        ready = pool.startable()
        for worker in workers:
            if ready <= 0 or self.is_cut:
                return
            # A fair share, rounded up: a few tasks are spread over the workers rather than heaped on the first.
            leases = self._fill(pool, worker, -(-ready // waiting), now)
            waiting -= 1
            ready -= len(leases)
            if leases:
                replies.append(self._answer(pool, worker, leases))
            else:
                pool.ahead.pop(worker.name, None)

    def _fill(self, pool: Pool, worker: Worker, most: int, now: float) -> list[Lease]:
        lineup, estimate = pool.lineup, self._estimate
        prefetch_s, max_held = self._settings.prefetch_s, self._settings.max_held
        leases: list[Lease] = []
        waits, batches = worker.open, bool(worker.batching)
        while (len(leases) < most or waits) and (lane := lineup.head(now)) is not None:
            stream, task = lane.stream, lane.best
            if task.terms is not NO_TERMS and is_over(task, now):
                self._expire(task)
                continue
            estimate_s = estimate(lane, task)
            joins = self._joins(worker, lane, now) if waits else False
            if not joins and (len(leases) >= most or not worker.has_room(estimate_s, prefetch_s, max_held)):
                break
            chosen = self._choose(pool, lane, worker, now) if task.options.affinity_key else task
            if chosen is None:
                continue
            if (to_read := chosen.left_out + chosen.checkpoint_bytes) and not self._affords(to_read):
                break
            if worker.taken < worker.concurrency:
                pool.progressed(worker, now)
            elif chosen.rank > stream.ahead_rank:
                stream.ahead_rank = chosen.rank
            stream.serve(lane, now, None if chosen is task else chosen)
            # Who joins others takes no slot: it runs when they do.
            counts_s = estimate_s if estimate_s < prefetch_s else 0.0 if joins else prefetch_s
            leases.append(self._claim(chosen, worker, counts_s))
            if batches:
                worker.note_lane(chosen.id, lane)
        if waits:
            self._ride_along(pool, worker, leases, now)
            worker.close_batches(now)
        return leases

    def _choose(self, pool: Pool, lane: Lane, worker: Worker, now: float) -> Task | None:
        """What the worker gets of a lane whose next task has an affinity key. None where somebody else got it, or the
        lane waits: then another one is next."""
        chosen = pool.homes.choose(lane, worker, now, self._has_room)
        if chosen is None:
            pool.homes.hold(lane, now)
            return None
        task, home = chosen
        if task.terms is not NO_TERMS and is_over(task, now):
            self._expire(task)
            return None
        if home is worker:
            return task
        lane.stream.serve(lane, now, task)
        leases = self._at_home.setdefault(home.name, (home, []))[1]
        leases.append(self._claim(task, home, min(self._run_times.estimate(lane.key[0]), self._settings.prefetch_s)))
        return None

    def _has_room(self, lane: Lane, worker: Worker) -> bool:
        return worker.has_room(self._estimate(lane, lane.best), self._settings.prefetch_s, self._settings.max_held)

    def _joins(self, worker: Worker, lane: Lane, now: float) -> bool:
        batch = worker.open.get(lane.key[0])
        return batch is not None and batch.takes(now) and len(worker.held) < self._settings.max_held

    def _ride_along(self, pool: Pool, worker: Worker, leases: list[Lease], now: float) -> None:
        """What is next finds no room, and a batch has some left for tasks that come after it: they cost it nothing."""
        prefetch_s = self._settings.prefetch_s
        for batch in list(worker.open.values()):
            for lane in batch.lanes:
                while self._joins(worker, lane, now) and (task := lane.next_rider(pool.lineup, now)) is not None:
                    if task.terms is not NO_TERMS and is_over(task, now):
                        self._expire(task)
                        continue
                    if task.options.affinity_key and pool.homes.of(task) not in (None, worker):
                        break
                    if (to_read := task.left_out + task.checkpoint_bytes) and not self._affords(to_read):
                        return
                    if worker.taken > worker.concurrency:
                        lane.stream.ahead_rank = max(lane.stream.ahead_rank, task.rank)
                    estimate_s = self._estimate(lane, task)
                    task = lane.stream.serve(lane, now)
                    leases.append(self._claim(task, worker, estimate_s if estimate_s < prefetch_s else 0.0))

    def _estimate(self, lane: Lane, task: Task) -> float:
        """Run time of a task of the lane, in seconds."""
        if lane is not self._estimated:
            # What is metered is to start when it is given out.
            least_s = self._settings.prefetch_s if lane.is_metered else 0.0
            self._estimated, self._usual_s = lane, max(self._run_times.estimate(lane.key[0]), least_s)
        # A large payload takes long to send, however short its task runs.
        return max(self._usual_s, self._settings.prefetch_s) if task.left_out else self._usual_s

    def _affords(self, size: int) -> bool:
        self.is_cut = self._bytes > 0 and self._bytes + size > self._settings.lease_bytes
        if not self.is_cut:
            self._bytes += size
        return not self.is_cut

    def _suspects(self, pool: Pool) -> list[PollReply]:
        """Each has a process of its own, and takes a slot like others."""
        replies: list[PollReply] = []
        max_held = self._settings.max_held
        while pool.suspects and (worker := _first(pool.idle) or _first(pool.free)) is not None:
            leases: list[Lease] = []
            while worker.has_slot(max_held) and (task := self._startable(pool.suspects)) is not None:
                leases.append(self._start(pool, task, worker))
            if not leases:
                break
            replies.append(self._answer(pool, worker, leases))
        return replies

    def _loners(self, pool: Pool) -> list[PollReply]:
        """One at a time, on a worker that holds nothing else."""
        emptied = pool.isolation
        if emptied is not None and emptied.alone:
            return []
        task = self._startable(pool.loners)
        if task is None:
            if emptied is not None:
                pool.isolate(None)
            return []
        # One that is idle already spares the wait for the one that was told to finish first.
        can = emptied is not None and emptied.polls and not emptied.held and not emptied.leaving
        idle = emptied if can else _first(pool.idle)
        if idle is None:
            if emptied is None:
                # All workers are looked at, but once until the loners are through.
                present = (worker for worker in pool.workers.values() if worker.session and not worker.leaving)
                pool.isolate(min(present, key=lambda worker: len(worker.held), default=None))
            return []
        pool.isolate(idle)
        return [self._answer(pool, idle, [self._start(pool, task, idle)])]

    def _startable(self, waiting: list[tuple[float, TaskId, Task]]) -> Task | None:
        """The best of them whose gates are open."""
        if not waiting or self._backlog.may_start(waiting[0][2]):
            return waiting[0][2] if waiting else None
        able = (entry for entry in waiting if self._backlog.may_start(entry[2]))
        return min(able, key=lambda entry: entry[:2], default=(0.0, b"", None))[2]

    def _start(self, pool: Pool, task: Task, worker: Worker) -> Lease:
        pool.clear({task.id})
        self._backlog.start(task)
        return self._claim(task, worker, self._settings.prefetch_s)

    def _answer(self, pool: Pool, worker: Worker, leases: list[Lease]) -> PollReply:
        poll = worker.take_poll()
        if poll is None:
            raise AssertionError(f"{worker.name} was offered leases without a poll to carry them")
        if self._at_home and (theirs := self._at_home.pop(worker.name, None)) is not None:
            leases = theirs[1] + leases
        self.granted.append(worker)
        pool.place(worker)
        return PollReply(poll.ticket, leases)


def _first(place: dict[str, Worker]) -> Worker | None:
    return next(iter(place.values()), None)
