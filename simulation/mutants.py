"""Deliberate faults of the core, the table, the shell and the workers. A simulator that misses one proves nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch

from asyncproc.core import backlog, commands, known_types, replace, workers
from asyncproc.core.affinity import Homes
from asyncproc.core.alarms import Alarms
from asyncproc.core.backlog import Backlog
from asyncproc.core.batches import Batch
from asyncproc.core.change import retry_asked
from asyncproc.core.crowd import Crowd, Place
from asyncproc.core.decision import PurgeReply
from asyncproc.core.events import Purged, RetryAsked
from asyncproc.core.gates import Gate, Gates, RunningLimit, TokenBucket
from asyncproc.core.lanes import Lane
from asyncproc.core.overflow import Bounds
from asyncproc.core.pool import Pool
from asyncproc.core.schedule import Position, Tick
from asyncproc.core.schedules import Schedules
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.streams import Stream
from asyncproc.core.task import LaneKey, NewTask, Options, Task
from asyncproc.core.window import Window
from simulation import mutant_cores, mutant_shells
from simulation.history import Cast, History
from simulation.rules import Violation


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    says: str
    cast: Cast = field(default_factory=Cast)
    patches: tuple[tuple[Any, str, Any], ...] = ()

    @contextmanager
    def at_work(self) -> Iterator[Cast]:
        """The cast of its histories; what it changes in the core itself is undone afterwards."""
        patchers = [patch.object(*change) for change in self.patches]
        for patcher in patchers:
            patcher.start()
        try:
            yield self.cast
        finally:
            for patcher in patchers:
                patcher.stop()


@dataclass(frozen=True, slots=True)
class Caught:
    seed: int
    violation: str
    rule: str


def hunt(mutant: Mutant, seeds: int) -> Caught | None:
    """The first seed that catches it, None where none does."""
    with mutant.at_work() as cast:
        for seed in range(seeds):
            try:
                History(seed, cast).run()
            except Violation as violation:
                return Caught(seed, violation.detail, violation.rule)
    return None


# ---- changes inside the core that no subclass reaches

_come_due: Final = Backlog.come_due
_pop: Final = Window.pop
_replace: Final = replace._replace


def _come_due_early(self: Backlog, now: float, most: int) -> list[Task]:
    return _come_due(self, now + 0.2, most)


def _pop_second_best(self: Window) -> Task:
    best = self.peek()
    first = _pop(self)
    if best is None or not len(self):
        return first
    second = _pop(self)
    self.push(best[0], first)
    return second


def _trust(self: Backlog, task: Task) -> bool:
    return True


def _stay(self: Backlog, task: Task) -> None:
    self.tasks.pop(task.id, None)


def _keep_attempts(core: Core, task: Task, new: NewTask) -> None:
    attempt = task.attempt
    _replace(core, task, new)
    task.attempt = attempt


def _keep(self: RunningLimit, units: float) -> None:
    pass


def _let_nobody_on(self: Gate, now: float) -> None:
    pass


def _always_full(self: TokenBucket, now: float) -> float:
    return self.burst


def _forget(self: Gates, levels: Mapping[str, tuple[float, float]]) -> None:
    pass


def _pool_of_the_queue(self: Backlog, queue: str, shape: str = "") -> Pool:
    return self.pool(self.rules.queue(queue).pool or self._settings.pool(queue))


def _lane_of_all_shapes(options: Options) -> LaneKey:
    return (options.type, options.fairness_key, options.concurrency_key, "")


def _admit(*_: object) -> bool:
    return True


def _overlook(self: Bounds, number: int, is_all: bool = True) -> None:
    pass


def _no_refusal(*_: object) -> tuple[None, Counter[Place]]:
    return None, Counter()


def _guess(self: Bounds, found: Mapping[Place, Crowd]) -> None:
    for crowd in found.values():
        crowd.waiting = 0


def _never_paused(self: Backlog, queue: str) -> bool:
    return False


def _never_alone() -> property:
    return property(lambda worker: False, lambda worker, value: None)


def _rank_without_priority(ready_at: float, priority: int, aging_s: float) -> float:
    return ready_at


def _take_nothing(self: RunningLimit, units: float, now: float) -> None:
    pass


def _always(self: Batch, now: float) -> bool:
    return True


def _keep_slot(self: workers.Worker, batch: Batch) -> None:
    batch.left -= 1


def _ride_past_gates(self: Lane, lineup: object, now: float) -> Task | None:
    head = self.peek()
    return None if head is None else head[2]


def _purge_by_what_was_read(core: Core, event: Purged) -> None:
    for task_id, lease in event.rows:
        task = core.tasks.get(task_id)
        if task is not None and task.state is State.RUNNING:
            continue
        if task is not None:
            core.backlog.withdraw(task)
        core.decision.writes.cancelled.append((task_id, lease, event.reason))
    core.decision.replies.append(PurgeReply(event.ticket, len(event.rows)))


def _purge_the_disk_alone(core: Core, event: Purged) -> None:
    core.decision.writes.cancelled.extend((task_id, lease, event.reason) for task_id, lease in event.rows)
    core.decision.replies.append(PurgeReply(event.ticket, len(event.rows)))


def _ask_nobody(self: Backlog, worker: workers.Worker, types: frozenset[str] | None) -> None:
    pass


def _any_of_them(_: object, sets: Iterable[Set[str]]) -> frozenset[str]:
    return frozenset().union(*sets)


_tick: Final = Schedules._tick
_found: Final = Schedules.found


def _tick_unwritten(self: Schedules, entry: Any, at: float) -> None:
    _tick(self, entry, at)
    self._moved.discard(entry.schedule.name)


def _tick_up_to_now(self: Schedules, entry: Any, at: float) -> None:
    _tick(self, entry, at)
    entry.position = max(at, self._now)
    self._aim(entry)


def _found_ended(self: Schedules, positions: Mapping[str, Position], waiting: Iterable[tuple[str, Tick]]) -> None:
    _found(self, {which: position._replace(is_live=False) for which, position in positions.items()}, waiting)


def _found_no_line(self: Schedules, positions: Mapping[str, Position], waiting: Iterable[tuple[str, Tick]]) -> None:
    _found(self, positions, ())


def _retry_from_lease_0(core: Core, event: RetryAsked) -> None:
    event.task.lease = 0
    retry_asked(core, event)


PATCHED: Final = (
    Mutant(
        "restarts-leases",
        "a retry by hand begins at lease 0 again",
        patches=((commands, "retry_asked", _retry_from_lease_0),),
    ),
    Mutant(
        "ticks-off-the-record", "ticks do not move their schedule", patches=((Schedules, "_tick", _tick_unwritten),)
    ),
    Mutant(
        "ticks-up-to-now", "what is due with a tick is over with it", patches=((Schedules, "_tick", _tick_up_to_now),)
    ),
    Mutant("forgets-the-last-task", "after a restart it has ended", patches=((Schedules, "found", _found_ended),)),
    Mutant(
        "forgets-the-line", "after a restart nothing waits in line", patches=((Schedules, "found", _found_no_line),)
    ),
    Mutant(
        "purges-as-read", "a purge goes by leases of long ago", patches=((commands, "purge", _purge_by_what_was_read),)
    ),
    Mutant(
        "purges-the-disk", "memory keeps what a purge cancels", patches=((commands, "purge", _purge_the_disk_alone),)
    ),
    Mutant("counts-nobody", "limits never fill", patches=((RunningLimit, "take", _take_nothing),)),
    Mutant("keeps-what-it-took", "what ends frees no limit", patches=((RunningLimit, "give_back", _keep),)),
    Mutant("lets-nobody-on", "a gate that opens is not told", patches=((Gate, "let_on", _let_nobody_on),)),
    Mutant("fills-at-once", "token buckets are always full", patches=((TokenBucket, "filled", _always_full),)),
    Mutant("forgets-levels", "token buckets are full again after a restart", patches=((Gates, "refill", _forget),)),
    Mutant("ignores-what-is-asked", "any worker will do", patches=((Backlog, "pool_of", _pool_of_the_queue),)),
    Mutant("mixes-shapes", "tasks that ask share a lane", patches=((backlog, "lane_key", _lane_of_all_shapes),)),
    Mutant("starts-the-paused", "a paused queue goes on", patches=((Backlog, "_is_paused", _never_paused),)),
    Mutant("lets-all-wait", "there is room for any number", patches=((Bounds, "admit", _admit),)),
    Mutant("refuses-nobody", "who finds no room is told nothing", patches=((Bounds, "_without_room", _no_refusal),)),
    Mutant("reckons-with-nobody", "what comes back is not counted", patches=((Bounds, "came", _overlook),)),
    Mutant("guesses", "nobody waits as far as it knows", patches=((Bounds, "estimate", _guess),)),
    Mutant("trusts-old-copies", "a row read before it went on counts", patches=((Backlog, "is_on_disk", _trust),)),
    Mutant("replaces-what-runs", "what has begun is replaced", patches=((replace, "CHANGEABLE", frozenset(State)),)),
    Mutant(
        "keeps-the-attempts",
        "new content has the attempts of the old",
        patches=((replace, "_replace", _keep_attempts),),
    ),
    Mutant("keeps-the-old-place", "a changed task stays where it was too", patches=((Backlog, "withdraw", _stay),)),
    Mutant("drops-aging", "priorities count for nothing", patches=((backlog, "rank", _rank_without_priority),)),
    Mutant("ignores-weights", "all queues weigh the same", patches=((Stream, "weight", property(lambda stream: 1.0)),)),
    Mutant("claims-before-due", "a task comes due 0.2 s early", patches=((Backlog, "come_due", _come_due_early),)),
    Mutant("takes-the-second-best", "the best rank waits", patches=((Window, "pop", _pop_second_best),)),
    Mutant("gives-up-the-patient", "a long wait was silence", patches=((Alarms, "expect", _ask_nobody),)),
    Mutant("asks-nobody", "a task goes to whoever has room", patches=((Backlog, "knows", _ask_nobody),)),
    Mutant("one-is-enough", "one that knows the type is enough", patches=((known_types, "reduce", _any_of_them),)),
    Mutant("waits-for-ever", "who has a key waits for its worker", patches=((Homes, "let_go", _let_nobody_on),)),
    Mutant(
        "sends-nobody-home",
        "who is free again gets none of its own",
        patches=((Homes, "let_go_home", _forget),),
    ),
    Mutant("overfills", "a batch has room for ever", patches=((Batch, "takes", _always),)),
    Mutant("keeps-the-slot", "an ended batch takes its slot still", patches=((workers.Worker, "_leave", _keep_slot),)),
    Mutant("rides-past-gates", "who rides along passes no gate", patches=((Lane, "next_rider", _ride_past_gates),)),
    Mutant("suspects-in-company", "a suspect runs beside others", patches=((workers.Worker, "alone", _never_alone()),)),
)


def _named(kind: type) -> tuple[str, str]:
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)
    return words.lstrip("-"), (kind.__doc__ or "").split("\n")[0].rstrip(".")


def _all(kinds: tuple[type[Any], ...], part: Callable[[type[Any]], Cast]) -> tuple[Mutant, ...]:
    return tuple(Mutant(*_named(kind), cast=part(kind)) for kind in kinds)


MUTANTS: Final[tuple[Mutant, ...]] = (
    *_all(mutant_shells.TABLES, lambda kind: Cast(table=kind)),
    *_all(mutant_shells.ACTORS, lambda kind: Cast(actor=kind)),
    *_all(mutant_shells.WORKERS, lambda kind: Cast(worker=kind)),
    *_all(mutant_cores.CORES, lambda kind: Cast(core=kind)),
    *PATCHED,
)


def by_name(name: str) -> Mutant:
    """Raises `KeyError`."""
    return {mutant.name: mutant for mutant in MUTANTS}[name]
