"""Why a task is where it is: what is ahead of it, what keeps it from starting, and when it may start.

A look at the core between two steps: it changes nothing, and is no slower than a window is long.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncproc.core.blockers import Blocker, blockers
from asyncproc.core.decision import Key
from asyncproc.core.pool import Pool
from asyncproc.core.states import DUE_LATER, State
from asyncproc.core.streams import Stream
from asyncproc.core.task import Task

if TYPE_CHECKING:
    from asyncproc.core.step import Core


@dataclass(frozen=True, slots=True)
class Look:
    """What memory says of one task."""

    state: State
    type: str
    queue: str
    place: Key
    """Rank and id, by which the ready tasks of a queue are ordered."""
    ready_at: float
    reasons: list[Blocker]
    ahead: dict[str, int]
    """Ready tasks of its queue in memory that come before it, by type."""
    is_whole: bool
    """No others on disk come before it."""
    running_ahead: dict[str, int]
    """Running tasks of its queue of better rank, by type: a count of the table has them too."""
    pool: str
    slots: int
    """Tasks that the workers of its pool run at once."""
    share: float
    """Its queue's part of them while all queues of the pool have work."""
    run_s: dict[str, float]
    """Recent run times by type, in seconds; of those that ran lately."""
    now: float


def look_at(core: "Core", task: Task, problem: Callable[[str], str] = lambda _: "") -> Look:
    """`task` is the core's own copy, or one that is on disk alone. `problem` says why a pool lacks workers."""
    backlog = core.backlog
    pool, stream = backlog.pool_of(task.queue, task.shape), backlog.stream(task.queue, task.shape)
    place = (task.rank, task.id)
    ahead = Counter[str]()
    is_whole = task.id in core.tasks
    if task.state is State.QUEUED:
        for lane in stream.lanes.values():
            ahead[lane.key[0]] += lane.count_before(place)
            is_whole = is_whole and (lane.end is None or place <= lane.end)
    running = (core.tasks[task_id] for worker in core.workers.values() for task_id in worker.held)
    better = (other for other in running if other.queue == task.queue and (other.rank, other.id) < place)
    workers = [worker for worker in pool.workers.values() if worker.session and not worker.leaving]
    types = {*ahead, task.options.type}
    return Look(
        task.state,
        task.options.type,
        task.queue,
        place,
        task.ready_at,
        list(_reasons(core, task, pool, problem(pool.name))),
        {name: number for name, number in ahead.items() if number},
        is_whole,
        dict(Counter(other.options.type for other in better)),
        pool.name,
        sum(worker.concurrency for worker in workers),
        _share(pool, stream),
        {name: seconds for name in types if (seconds := core.run_times.known(name)) is not None},
        core.now,
    )


def starts_at(look: Look, ahead: Mapping[str, int]) -> float | None:
    """When it may start, in seconds since 1970, if what is ahead takes as long as it lately did; None where that
    cannot be told."""
    if look.state in DUE_LATER:
        return look.ready_at
    if look.state is not State.QUEUED or not look.slots:
        return None
    free_at = look.now
    for reason in look.reasons:
        if reason.until is None and reason.kind not in _PASSING:
            return None
        free_at = max(free_at, reason.until or 0.0)
    number = sum(ahead.values())
    known = {name: look.run_s[name] for name in ahead if name in look.run_s} or look.run_s
    if not known:
        return free_at if not number and not look.reasons else None
    mean_s = sum(known.values()) / len(known)
    work_s = sum(count * look.run_s.get(name, mean_s) for name, count in ahead.items())
    if not number and look.reasons:
        work_s = mean_s  # what runs now has to end first
    start_at = max(free_at, look.now + work_s / (look.slots * look.share))
    return start_at if start_at < look.now + _FARTHEST_S else None


_FARTHEST_S: Final = 366 * 86_400.0
_PASSING: Final = frozenset({"busy", "queue", "type", "key", "suspect"})
"""What ends by itself when something that runs has ended."""


def _reasons(core: "Core", task: Task, pool: Pool, problem: str) -> Iterator[Blocker]:
    now = core.now
    if task.state is State.RUNNING:
        return
    if task.state is State.BLOCKED:
        yield Blocker("tasks", "", "it waits for other tasks to end")
        return
    if task.state in DUE_LATER:
        word = "its next attempt" if task.state is State.RETRYING else "its instant"
        yield Blocker("instant", "", f"it waits for {word}, in {max(0.0, task.ready_at - now):.1f} s", task.ready_at)
    yield from blockers(core.backlog, task.options, now)
    workers = [worker for worker in pool.workers.values() if worker.session and not worker.leaving]
    slots = sum(worker.concurrency for worker in workers)
    taken = sum(min(worker.taken, worker.concurrency) for worker in workers)
    if not workers:
        text = f"pool {pool.name}, which serves queue {task.queue}, has no worker"
        yield Blocker("pool", pool.name, f"{text}: {problem}" if problem else text)
    elif taken >= slots:
        yield Blocker("busy", pool.name, f"{taken} of {slots} slots of pool {pool.name} are taken")
        if problem:
            yield Blocker("pool", pool.name, f"pool {pool.name} has no more workers: {problem}")
    if (awaited := pool.homes.awaited(task)) is not None and awaited[1] > now:
        yield Blocker("affinity", awaited[0], f"{awaited[0]} ran its affinity key last and has no room", awaited[1])
    if task.losses:
        yield Blocker("suspect", "", "its worker died while it ran: it runs next with nobody beside it")


def _share(pool: Pool, stream: Stream) -> float:
    others = sum(other.weight for other in pool.lineup if other is not stream and other.startable)
    return stream.weight / (stream.weight + others)
