"""Bounds on the tasks that wait in a queue, or wait there with one concurrency key.

How many wait is counted in the table between two steps, when table and memory agree, and only where new tasks come
that the bound is for. What else happens in that step comes after the new tasks: what leaves makes room for the next
step, and what comes back (retried, handed back, released, moved) is never turned away.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from asyncproc.core.cancel import cancel_waiting
from asyncproc.core.crowd import Crowd, Place, bounded
from asyncproc.core.events import (
    Enqueued,
    Event,
    Occupied,
    Polled,
    Refused,
    Released,
    RulesChanged,
    SchedulesChanged,
    TicksAsked,
)
from asyncproc.core.states import State
from asyncproc.core.steering import Overflow, QueueRules
from asyncproc.core.task import KeyUsed, NewTask, Options, Task, TaskId
from asyncproc.errors import Full

if TYPE_CHECKING:
    from asyncproc.core.decision import Writes
    from asyncproc.core.step import Core

TICKS: Final = 500
"""Tasks that a schedule may make in one step, as far as is reckoned with."""
_WAITING: Final = frozenset({State.QUEUED, State.SCHEDULED, State.RETRYING})


def crowds(core: "Core", events: Sequence[Event], now: float) -> dict[Place, Crowd]:
    """The places for which these events may bring new tasks. Those whose `waiting` is None are to be counted, and all
    of them are to be among the events as `Occupied`."""
    rules: Mapping[str, QueueRules] = core.backlog.bounded
    for event in events:
        if isinstance(event, RulesChanged):
            rules = bounded(event.rules)
            core.overflow.forget()
        elif isinstance(event, Released):
            core.overflow.came(len(event.tasks), is_all=event.since is None)
        elif isinstance(event, Refused):
            core.overflow.forget()
    if not rules:
        return {}
    found: dict[Place, Crowd] = {}
    for options, number in _coming(core, events, rules, now):
        queue = rules[options.queue]
        if queue.max_waiting is not None:
            _expect(found, (options.queue, ""), queue.max_waiting, queue.overflow, number)
        if queue.max_waiting_per_key is not None and options.concurrency_key:
            place = (options.queue, options.concurrency_key)
            _expect(found, place, queue.max_waiting_per_key, queue.overflow, number)
    core.overflow.estimate(found)
    return found


def _expect(found: dict[Place, Crowd], place: Place, limit: int, policy: Overflow, number: int) -> None:
    crowd = found.get(place)
    if crowd is None:
        crowd = found[place] = Crowd(limit, policy)
    crowd.coming += number


def _coming(
    core: "Core", events: Sequence[Event], rules: Mapping[str, QueueRules], now: float
) -> Iterator[tuple[Options, int]]:
    """By options, how many new tasks may come to these queues."""
    for event in events:
        if isinstance(event, Enqueued):
            yield from ((task[2], 1) for task in event.tasks if task[2].queue in rules)
        elif isinstance(event, Polled):
            children = (child for outcome in event.outcomes for child in outcome[7] or ())
            yield from ((child[2], 1) for child in children if child[2].queue in rules)
        elif isinstance(event, SchedulesChanged):
            new = (schedule.options for schedule in event.schedules.values() if schedule is not None)
            yield from ((options, TICKS) for options in new if options.queue in rules)
        elif isinstance(event, TicksAsked):
            options = core.schedules.options_of(event.name)
            if options is not None and options.queue in rules:
                yield options, len(event.ticks)
    yield from ((options, TICKS) for options in core.schedules.may_make(now) if options.queue in rules)


class Bounds:
    """The crowds of the step."""

    def __init__(self) -> None:
        self._crowds: dict[Place, Crowd] = {}
        self._at_most: dict[str, int] = {}
        """Queues that were counted: no more wait there. What leaves is not followed."""
        self._fresh: dict[TaskId, Task] = {}
        self._gone: set[TaskId] = set()

    def __bool__(self) -> bool:
        return bool(self._crowds)

    def forget(self) -> None:
        """Count anew before the next decision."""
        self._at_most.clear()

    def estimate(self, found: Mapping[Place, Crowd]) -> None:
        """Where there is room in any case nothing needs to be counted."""
        for (queue, key), crowd in found.items():
            at_most = None if key else self._at_most.get(queue)
            if at_most is not None and at_most + crowd.coming <= crowd.limit:
                crowd.waiting = at_most

    def take(self, event: Occupied) -> None:
        self._crowds = event.crowds

    def came(self, number: int, is_all: bool = True) -> None:
        """Tasks came to queues without asking for room: whichever, and more where these are not all."""
        if not is_all:
            self.forget()
        elif number and self._at_most:
            self._at_most = {queue: most + number for queue, most in self._at_most.items()}

    def close(self, writes: "Writes") -> None:
        """The step is over."""
        for (queue, key), crowd in self._crowds.items():
            if not key and crowd.waiting is not None:
                self._at_most[queue] = crowd.waiting
        self._crowds = {}
        self._fresh.clear()
        self._gone.clear()
        if self._at_most:
            put_back = len(writes.retried) + len(writes.requeued) + len(writes.snoozed) + len(writes.revived)
            self.came(put_back + len(writes.changed) + len(writes.replaced))

    # ---- new tasks

    def let_in(self, core: "Core", event: Enqueued) -> tuple[list[NewTask], list[KeyUsed], list[Full]]:
        """The tasks and keys of requests that are not refused, and why the others are."""
        kept: list[NewTask] = []
        full: list[Full] = []
        taken: Counter[Place] = Counter()
        start = 0
        for size in event.sizes or (len(event.tasks),):
            tasks = event.tasks[start : start + size]
            start += size
            problem, needs = self._without_room(core, tasks, taken)
            if problem is None:
                kept += tasks
                taken += needs
            else:
                full.append(problem)
        refused = {task_id for each in full for task_id in each.task_ids}
        return kept, [used for used in event.keys if refused.isdisjoint(used[4])], full

    def _without_room(
        self, core: "Core", tasks: Sequence[NewTask], taken: Counter[Place]
    ) -> tuple[Full | None, Counter[Place]]:
        needs: Counter[Place] = Counter()
        for task_id, _, options, _, terms in tasks:
            if terms.parents is not None or task_id in core.tasks or task_id in core.fresh:
                continue
            for place, crowd in self._places(options):
                if crowd.policy is not Overflow.REJECT:
                    continue
                needs[place] += 1
                waiting = (crowd.waiting or 0) + taken[place]
                if waiting + needs[place] > crowd.limit:
                    ids = tuple(task[0] for task in tasks)
                    return Full(ids, task_id, *place, waiting, crowd.limit), needs
        return None, needs

    def admit(self, core: "Core", task: Task) -> bool:
        """Whether there is room for a new task, if need be in the place of an older one. Where there is none it is
        cancelled as soon as it is there."""
        places = list(self._places(task.options))
        for place, crowd in places:
            while (crowd.waiting or 0) >= crowd.limit:
                if crowd.policy is not Overflow.CANCEL_OLDEST or not self._cancel_oldest(core, place, crowd):
                    core.counters.cancelled += 1
                    core.decision.writes.overflown.append((task.id, task.lease, _reason(place, crowd, "no room")))
                    return False
        for _, crowd in places:
            crowd.waiting = (crowd.waiting or 0) + 1
            if crowd.policy is Overflow.CANCEL_OLDEST:
                crowd.oldest.append((task.id, task.lease, task.options.concurrency_key))
                self._fresh[task.id] = task
        return True

    def _cancel_oldest(self, core: "Core", place: Place, crowd: Crowd) -> bool:
        while crowd.oldest:
            task_id, lease, key = crowd.oldest.popleft()
            fresh = self._fresh.get(task_id)
            task = fresh or core.tasks.get(task_id)
            is_elsewhere = task is not None and task.state not in _WAITING
            if task_id in self._gone or task_id in core.altered or is_elsewhere:
                continue
            self._gone.add(task_id)
            reason = _reason(place, crowd, "a newer one came")
            if fresh is not None:
                core.backlog.withdraw(fresh)
                core.counters.cancelled += 1
                core.decision.writes.overflown.append((task_id, lease, reason))
            elif task is not None:
                cancel_waiting(core, task, reason)
            else:
                core.altered.add(task_id)
                core.counters.cancelled += 1
                core.decision.writes.cancelled.append((task_id, lease, reason))
            for left in {(place[0], ""), (place[0], key)}:
                other = self._crowds.get(left)
                if other is not None and other.waiting is not None:
                    other.waiting -= 1
            return True
        return False

    def _places(self, options: Options) -> Iterator[tuple[Place, Crowd]]:
        for key in ("", options.concurrency_key) if options.concurrency_key else ("",):
            crowd = self._crowds.get((options.queue, key))
            if crowd is not None:
                yield (options.queue, key), crowd


def _reason(place: Place, crowd: Crowd, why: str) -> str:
    queue, key = place
    where = f"queue {queue} with the key {key}" if key else f"queue {queue}"
    return f"{why}: {crowd.limit} tasks may wait in {where}"
