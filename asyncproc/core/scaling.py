"""How many workers a pool should have: quickly more of them, slowly fewer.

The backlog is weighed in seconds of work. There should be as many slots as run it off within the target wait, besides
those that are taken; and there are as many workers as were needed at most in the time just past.
"""

from dataclasses import dataclass
from itertools import islice
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from asyncproc.core.gates import RunningLimit
from asyncproc.core.pool import Pool
from asyncproc.core.shape import number_text
from asyncproc.core.streams import Stream

if TYPE_CHECKING:
    from asyncproc.core.step import Core

UNKNOWN_S: Final = 1.0
"""What a task of a type that never ran is taken to last."""
LOOK_AT: Final = 256
"""Lanes of a queue that are looked at: those of the others are taken to be like them."""
LATE: Final = 1.5
"""Where tasks wait longer than they should, there are so many times the workers, each time it is looked at."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is set for a pool."""

    least: int
    most: int
    target_wait_s: float
    idle_after_s: float
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool has to do."""

    ready: int = 0
    """Tasks that could start, in memory and, as far as is known, on disk."""
    room: float = inf
    """So many of them may run at once by the limits that they meet, besides what runs."""
    work_s: float = 0.0
    """How long one slot would take for them."""
    oldest_s: float = 0.0
    """For how long one of them has waited at most."""
    running: int = 0
    """Slots that are taken."""
    workers: int = 0
    """Workers that take tasks."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A decision, and what the next one has to know."""

    workers: int = 0
    reason: str = ""
    needed: tuple[tuple[float, int], ...] = ()
    """Workers that were needed of late, each with the last instant of that: the later, the fewer."""


def decide(bounds: Bounds, load: Load, before: Wanted, now: float) -> Wanted:
    """As many workers as were needed at most within `idle_after_s`. `now` only grows."""
    if bounds.least >= bounds.most:
        return Wanted(bounds.most, "as many as are set, whatever waits", ((now, bounds.most),))
    number, reason = _needed(bounds, load, before.workers)
    needed = min(max(number, bounds.least), bounds.most)
    if needed != number:
        reason += f": at least {bounds.least} workers" if needed > number else f": at most {bounds.most} workers"
    lately = [(at, more) for at, more in before.needed if more > needed and at > now - bounds.idle_after_s]
    most = min(lately[0][1], bounds.most) if lately else needed
    if most > needed:
        reason += f"; {most} workers were needed {_seconds(now - lately[0][0])} ago"
    return Wanted(most, reason, (*lately, (now, needed)))


def begin(workers: int, now: float) -> Wanted:
    """Before the first decision: so many were there when the reign began."""
    return Wanted(workers, "they were there when the reign began", ((now, workers),))


def _needed(bounds: Bounds, load: Load, before: int) -> tuple[int, str]:
    if not load.ready:
        slots, reason = load.running, f"{load.running} tasks run and none waits"
        return ceil(slots / bounds.concurrency), reason
    target_s = bounds.target_wait_s
    # Never more slots than tasks: those that run have one.
    ready = int(min(load.ready, load.room))
    slots = load.running + min(ready, max(1, ceil(load.work_s / target_s)))
    reason = f"{load.ready} tasks wait, {_seconds(load.work_s)} of work for a wait of {_seconds(target_s)}"
    workers = ceil(slots / bounds.concurrency)
    if load.oldest_s > target_s and load.workers >= before:
        # All that were wanted are there, and it is not enough: what was thought of the run times is wrong.
        late = min(ceil(max(before, 1) * LATE), ceil((load.running + ready) / bounds.concurrency))
        if late > workers:
            return late, f"{reason}, and one waits for {_seconds(load.oldest_s)} already"
    return workers, reason


def _seconds(seconds: float) -> str:
    return f"{number_text(round(seconds, 1 if seconds < 10 else 0))} s"


# ---- what a pool has to do, looked up in the core


def load_of(core: "Core", pool: Pool) -> Load:
    """A look between two steps: it changes nothing."""
    # What runs on one that leaves needs nobody else.
    staying = [worker for worker in pool.workers.values() if not worker.leaving]
    slots = [min(worker.taken, worker.concurrency) for worker in staying]
    ahead = sum(worker.taken for worker in staying) - sum(slots)
    ahead_s = sum(worker.held_s for worker in staying if worker.is_laden())
    ready, work_s, oldest_s, room = ahead, ahead_s if ahead else 0.0, 0.0, float(ahead)
    if not core.backlog.paused:
        suspects = len(pool.suspects) + len(pool.loners)
        ready, work_s, room = ready + suspects, work_s + suspects * UNKNOWN_S, room + suspects
        for stream in pool.lineup:
            if stream.startable <= 0:
                continue
            number, seconds, oldest, may_run = _weigh(core, stream)
            ready, work_s, oldest_s = ready + number, work_s + seconds, max(oldest_s, oldest)
            room += may_run
    return Load(ready, room, work_s, oldest_s, sum(slots), sum(worker.session > 0 for worker in staying))


def _weigh(core: "Core", stream: Stream) -> tuple[int, float, float, float]:
    """Tasks that could start, the seconds that they take, the longest wait, and how many of them may run at once."""
    now = core.now
    number, seconds, oldest_s, room = 0, 0.0, 0.0, 0.0
    limit = inf
    for lane in islice(stream.lanes.values(), LOOK_AT):
        if not (waiting := len(lane) + lane.behind) or lane.shut is not None or lane.closed(now) is not None:
            continue
        # A limit that was made smaller may be exceeded by what runs already.
        limits = [
            (gate.kind, max(0, gate.limit - gate.used)) for gate, _ in lane.draws if isinstance(gate, RunningLimit)
        ]
        limit = min((free for kind, free in limits if kind == "queue"), default=inf)
        room += min([waiting, *(free for _, free in limits)])
        run_s = core.run_times.known(lane.key[0])
        number += waiting
        seconds += waiting * (UNKNOWN_S if run_s is None else run_s)
        head = lane.peek()
        if head is not None:
            oldest_s = max(oldest_s, now - head[2].ready_at)
    others = 0 if len(stream.lanes) <= LOOK_AT else max(0, stream.startable - number)
    if others:
        seconds, room = seconds * (1 + others / number) if number else others * UNKNOWN_S, room + others
    return number + others, seconds, oldest_s, min(room, limit)
