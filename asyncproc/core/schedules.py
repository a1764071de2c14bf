"""All schedules, in the order of their next ticks, and the tasks that follow from those that are due.

What is decided of a tick, its task and the position of its schedule are writes of one and the same step.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from asyncproc.core.decision import RulesReply, TicksReply, Writes
from asyncproc.core.events import SchedulesChanged, TicksAsked
from asyncproc.core.schedule import MAX_LINE, Kind, Outcome, Overlap, Position, Schedule, Tick, just_before, tick_id
from asyncproc.core.task import NO_TERMS, NewTask, Options, TaskId

MAX_TICKS_A_STEP: Final = 500
"""Each costs up to a tenth of a millisecond, most of it for the next instant."""


@dataclass(slots=True, eq=False)
class _Entry:
    schedule: Schedule
    position: float
    next_at: float | None = None
    last_task: TaskId | None = None
    open: TaskId | None = None
    """The last task, where it is known not to have ended."""
    line: deque[Tick] = field(default_factory=deque)


class Schedules:
    def __init__(self, grace_s: float) -> None:
        """A tick that is no later than `grace_s` is on time."""
        self._grace_s = grace_s
        self.draining: frozenset[str] = frozenset()
        """Queues that take no new tasks."""
        self._entries: dict[str, _Entry] = {}
        self._found: dict[str, Position] = {}
        self._lines: dict[str, list[Tick]] = {}
        self._heap: list[tuple[float, str]] = []
        self._open: dict[TaskId, str] = {}
        self._freed: set[str] = set()
        """Schedules whose last task has ended while ticks wait for that."""
        self._moved: set[str] = set()
        self._now = 0.0
        self._writes = Writes()
        self._new: list[NewTask] = []
        self._noted: dict[TaskId, tuple[TaskId, str, float, Kind, Outcome, float]] = {}
        """By id: a tick may be put in line and get its turn in one step, and is one row."""

    def found(self, positions: Mapping[str, Position], waiting: Iterable[tuple[str, Tick]]) -> None:
        """What the table held when the reign began."""
        self._found = dict(positions)
        for name, tick in waiting:
            self._lines.setdefault(name, []).append(tick)

    def begin(self, now: float, writes: Writes) -> None:
        self._now, self._writes = now, writes
        self._new = []

    # ---- what people want

    def obey(self, event: SchedulesChanged | TicksAsked) -> RulesReply | TicksReply:
        if isinstance(event, TicksAsked):
            return self._ask(event)
        self._change(event)
        return RulesReply(event.ticket)

    def _change(self, event: SchedulesChanged) -> None:
        for name, schedule in event.schedules.items():
            if schedule is None:
                self._forget(name)
            else:
                self._set(schedule)
        if event.is_all:
            for name in [
                name for name in {**self._entries, **self._found, **self._lines} if name not in event.schedules
            ]:
                self._forget(name)

    def _ask(self, event: TicksAsked) -> TicksReply:
        entry = self._entries.get(event.name)
        if entry is None:
            return TicksReply(event.ticket, 0)
        if entry.schedule.overlap is Overlap.QUEUE and len(entry.line) + len(event.ticks) > MAX_LINE:
            return TicksReply(event.ticket, 0, is_full=True)
        for tick in event.ticks:
            self._decide(entry, tick)
        self._moved.add(event.name)
        return TicksReply(event.ticket, len(event.ticks))

    def _set(self, schedule: Schedule) -> None:
        name = schedule.name
        entry = self._entries.get(name)
        if entry is None:
            found = self._found.pop(name, None) or Position("", self._now)
            entry = self._entries[name] = _Entry(schedule, found.at, last_task=found.last_task)
            entry.line.extend(self._lines.pop(name, ()))
            if found.is_live and found.last_task is not None:
                self._follow(entry, found.last_task)
            is_same = found.stamp == schedule.stamp
        else:
            is_same = entry.schedule.stamp == schedule.stamp
            entry.schedule = schedule
        if not is_same:
            entry.position = self._now
            self._moved.add(name)
        if entry.line:
            self._freed.add(name)
        self._aim(entry)

    def _forget(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        self._found.pop(name, None)
        line = self._lines.pop(name, []) if entry is None else entry.line
        for tick in line:
            self._note(name, tick, "skipped")
        if entry is not None and entry.open is not None:
            self._open.pop(entry.open, None)
        self._freed.discard(name)
        self._moved.discard(name)
        self._writes.positions_over.append(name)

    # ---- what the clock says

    def come_due(self) -> list[NewTask]:
        """The tasks of the ticks that are due by now, or whose turn has come."""
        for name in sorted(self._freed):
            self._release(self._entries[name])
        self._freed.clear()
        budget = MAX_TICKS_A_STEP
        while budget and self._heap and self._heap[0][0] <= self._now:
            at, name = heappop(self._heap)
            entry = self._entries.get(name)
            if entry is not None and entry.next_at == at:
                self._tick(entry, at)
                budget -= 1
        return self._new

    def ended(self, writes: Writes) -> None:
        """Look for the last tasks of schedules among those that end in this step; costs nothing where there are none.
        May be called again as the step goes on."""
        if not self._open:
            return
        for rows in (writes.succeeded, writes.failed, writes.overdue, writes.cancelled, writes.overflown):
            self.gone(row[0] for row in rows)

    def gone(self, ids: Iterable[TaskId]) -> None:
        for task_id in ids:
            name = self._open.pop(task_id, None)
            if name is not None:
                entry = self._entries[name]
                entry.open = None
                if entry.line:
                    self._freed.add(name)

    def finish(self) -> None:
        """Write down how far the schedules are that moved in this step. What ended as late as in its dispatch counts
        for the next one."""
        self.ended(self._writes)
        for name in sorted(self._moved):
            entry = self._entries[name]
            self._writes.positions.append((name, entry.schedule.stamp, entry.position, entry.last_task))
        self._moved.clear()
        self._writes.ticks.extend(self._noted.values())
        self._noted.clear()

    def options_of(self, name: str) -> Options | None:
        """Of the tasks of a schedule; None where there is none."""
        entry = self._entries.get(name)
        return None if entry is None else entry.schedule.options

    def may_make(self, now: float) -> list[Options]:
        """The options of tasks that the next step may make by itself: of ticks that are due by then, and of those that
        wait for a task which may end in it."""
        due = {name for at, name in self._heap if at <= now} if self._heap and self._heap[0][0] <= now else set()
        names = (name for name in {*due, *self._freed, *self._open.values()} if name in self._entries)
        return [self._entries[name].schedule.options for name in names]

    def next_at(self) -> float | None:
        if self._freed:
            return self._now
        while self._heap:
            at, name = self._heap[0]
            entry = self._entries.get(name)
            if entry is not None and entry.next_at == at:
                return at
            heappop(self._heap)
        return None

    def _tick(self, entry: _Entry, at: float) -> None:
        schedule = entry.schedule
        is_late = at < self._now - self._grace_s
        if is_late and at < (first := schedule.first_to_make(self._now, self._grace_s)):
            self._note(schedule.name, Tick(tick_id(schedule.name, at, self._now), at), "missed")
            entry.position = just_before(first)
        else:
            self._decide(entry, Tick(tick_id(schedule.name, at, self._now), at))
            entry.position = at
        self._moved.add(schedule.name)
        self._aim(entry)

    def _aim(self, entry: _Entry) -> None:
        """See to it that its next tick is noticed; what it was aimed at before is so no more."""
        entry.next_at = entry.schedule.next_after(entry.position)
        if entry.next_at is not None:
            heappush(self._heap, (entry.next_at, entry.schedule.name))

    # ---- what becomes of a tick

    def _decide(self, entry: _Entry, tick: Tick) -> None:
        overlap, name = entry.schedule.overlap, entry.schedule.name
        if overlap is Overlap.QUEUE and (entry.open is not None or entry.line):
            if len(entry.line) >= MAX_LINE:
                self._note(name, tick, "skipped")
            else:
                entry.line.append(tick)
                self._note(name, tick, "waiting")
                if entry.open is None:
                    self._freed.add(name)
        elif overlap is Overlap.SKIP and entry.open is not None and tick.kind == "tick":
            self._note(name, tick, "skipped")
        else:
            self._make(entry, tick)

    def _release(self, entry: _Entry) -> None:
        schedule = entry.schedule
        if schedule.is_paused(self._now):
            return
        while entry.line and not (schedule.overlap is Overlap.QUEUE and entry.open is not None):
            self._make(entry, entry.line.popleft())
            self._moved.add(schedule.name)

    def _make(self, entry: _Entry, tick: Tick) -> None:
        schedule = entry.schedule
        if schedule.options.queue in self.draining:
            self._note(schedule.name, tick, "drained")
            return
        self._new.append((tick.task_id, schedule.payload_at(tick.due_at), schedule.options, 0.0, NO_TERMS))
        self._note(schedule.name, tick, "task")
        entry.last_task = tick.task_id
        self._follow(entry, tick.task_id)

    def _follow(self, entry: _Entry, task_id: TaskId) -> None:
        if entry.open is not None:
            self._open.pop(entry.open, None)
            entry.open = None
        if entry.schedule.overlap is not Overlap.ALLOW:
            entry.open = task_id
            self._open[task_id] = entry.schedule.name

    def _note(self, name: str, tick: Tick, outcome: Outcome) -> None:
        self._noted[tick.task_id] = (tick.task_id, name, tick.due_at, tick.kind, outcome, self._now)
