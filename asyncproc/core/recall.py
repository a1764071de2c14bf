"""Which leases are called back before they begin.

A lease that was granted ahead waits for its slot at one worker, out of the order of all the others. That is worth it
while the wait is as short as was thought. It ends in two cases: the worker's slots are held up by tasks that take
longer than their type did so far, or a better task of the same queue finds no room before them. Until they are returned
the leases count as held. All that a worker holds is named, for it alone knows what has begun: that is not returned, and
nothing is made of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from asyncproc.core.decision import PollReply
from asyncproc.core.pool import Pool
from asyncproc.core.settings import CoreSettings
from asyncproc.core.task import Task, TaskId
from asyncproc.core.workers import Worker

EXCHANGE_S: Final = 0.005
"""About what it takes to ask a worker and to hear from it."""
AGAIN_S: Final = 1.0
"""A worker is asked no more often. What comes back costs a write and a second claim: a few hundred a second at most."""
LOOK_AT: Final = 32
"""Workers that one step considers: those that have gone longest without progress."""


def recall(pool: Pool, tasks: Mapping[TaskId, Task], settings: CoreSettings, now: float) -> list[PollReply]:
    """Call after the dispatch: what is at the head then has found no room. Every poll answered here is used up."""
    if not pool.laden:
        return []
    return [*_held_up(pool, tasks, settings, now), *_outranked(pool, tasks, settings, now)]


def is_overrun(worker: Worker, now: float, overrun_s: float) -> bool:
    return now >= worker.progress_at + overrun_s


def look_again_at(pool: Pool, settings: CoreSettings, now: float) -> float | None:
    """When a worker will be held up, if nothing is heard from it until then."""
    instants = (
        max(worker.progress_at + settings.overrun_s, worker.recalled_at + AGAIN_S)
        for worker in islice(pool.laden.values(), LOOK_AT)
        if worker.polls
    )
    return min((at for at in instants if at > now), default=None)


def _held_up(pool: Pool, tasks: Mapping[TaskId, Task], settings: CoreSettings, now: float) -> Iterator[PollReply]:
    """Nobody knows how long it will be: all that waits there goes back, to whoever is free first."""
    left = settings.max_held
    for worker in list(islice(pool.laden.values(), LOOK_AT)):
        if left <= 0 or not is_overrun(worker, now, settings.overrun_s):
            return
        if _may_be_asked(worker, now):
            left -= max(1, len(worker.held) - worker.concurrency)
            yield _ask(pool, worker, tasks, worker.held, now)
        else:
            pool.to_the_back(worker)


def _outranked(pool: Pool, tasks: Mapping[TaskId, Task], settings: CoreSettings, now: float) -> Iterator[PollReply]:
    """One worker makes room for the task at the head. Between queues it is their weights that decide, not the rank."""
    lane = pool.lineup.head(now)
    if lane is None or lane.best.rank >= lane.stream.ahead_rank:
        return
    stream, better = lane.stream, lane.best
    stream.ahead_rank = better.rank
    for worker in list(islice(pool.laden.values(), LOOK_AT)):
        # A wait shorter than this is over before the exchange is.
        if worker.held_s < 2 * EXCHANGE_S * worker.concurrency or not _may_be_asked(worker, now):
            continue
        worse = [id_ for id_ in worker.held if tasks[id_].queue == stream.queue and tasks[id_].rank > better.rank]
        if worse:
            yield _ask(pool, worker, tasks, worse, now)
            return


def _may_be_asked(worker: Worker, now: float) -> bool:
    return bool(worker.polls) and now >= worker.recalled_at + AGAIN_S


def _ask(pool: Pool, worker: Worker, tasks: Mapping[TaskId, Task], ids: Iterable[TaskId], now: float) -> PollReply:
    poll = worker.take_poll()
    if poll is None:
        raise AssertionError(f"{worker.name} was asked without a poll to carry the question")
    worker.recalled_at = now
    pool.to_the_back(worker)
    pool.place(worker)
    return PollReply(poll.ticket, [], [(task_id, tasks[task_id].lease) for task_id in ids])
