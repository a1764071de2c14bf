"""Schedules of a history, and what must be true of their ticks whatever happens to the QueueActor."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Final

from asyncproc.core.decision import Writes
from asyncproc.core.retry import constant
from asyncproc.core.schedule import CatchUp, Overlap, Schedule
from asyncproc.core.task import NO_TERMS, Options
from simulation.agenda import NOON
from simulation.chance import Chance
from simulation.ledger import Ledger, name
from simulation.rules import Rule, require
from simulation.table import Table

BY: Final = "schedule "


@dataclass(frozen=True, slots=True)
class Every:
    """Multiples of some seconds, up to an end."""

    seconds: float
    end: float = float("inf")

    def after(self, instant: float) -> float | None:
        following = (floor(instant / self.seconds) + 1) * self.seconds
        return following if following <= self.end else None

    def until(self, instant: float) -> float | None:
        return floor(min(instant, self.end) / self.seconds) * self.seconds

    def text(self, instant: float) -> bytes:
        return b'"%d"' % instant


def some_schedules(chance: Chance, for_s: float) -> dict[str, Schedule]:
    """None in most histories."""
    schedules: dict[str, Schedule] = {}
    for number in range(chance.choice((0, 0, 1, 3))):
        which = f"s{number}"
        options = Options("Short", "mail", chance.choice((0, 1)), constant(2, 0.2), f"{BY}{which}")
        plan = Every(chance.choice((0.5, 1.5, 4.0)), NOON + for_s)
        overlap = chance.choice((Overlap.ALLOW, Overlap.SKIP, Overlap.QUEUE))
        schedules[which] = Schedule(which, plan, options, b"{}", overlap, CatchUp.ALL, 3600.0, stamp=which)
    return schedules


class Timetable:
    """The judge of the ticks; it goes by the tables alone."""

    def __init__(self, schedules: Mapping[str, Schedule], table: Table, ledger: Ledger) -> None:
        self._schedules = schedules
        self._table = table
        self._ledger = ledger

    def committed(self, writes: Writes) -> None:
        """Tasks that nobody posted are there by a tick, and no two of a schedule that says so at once."""
        ticks = {tick[0] for tick in writes.ticks if tick[4] == "task"}
        for task in writes.inserts:
            if task.id in ticks and task.id not in self._ledger.posted:
                self._ledger.post((task.id, task.payload, task.options, 0.0, NO_TERMS))
        if not writes.ticks:
            return
        running = Counter(
            row.options.created_by.removeprefix(BY)
            for row in self._table.live.values()
            if not self._table.revivals[row.id]
        )
        for which, schedule in self._schedules.items():
            if schedule.overlap is not Overlap.ALLOW:
                require(running[which] <= 1, Rule.TICKS, f"{running[which]} tasks of {which} at once")

    def over(self) -> bool:
        """Nothing waits in a line, but behind a row that somebody deleted: memory may never hear of that."""
        ticks, taken = self._table.ticks, self._ledger.taken
        stuck = {which for which, (_, _, last_task) in ticks.positions.items() if last_task in taken}
        return all(row[3] != "waiting" or row[0] in stuck for row in ticks.rows.values())

    def judge(self) -> None:
        """Each tick is decided once, none is left out, and each that was to have a task has it."""
        instants: defaultdict[str, list[float]] = defaultdict(list)
        for task_id, (which, due_at, _, outcome) in self._table.ticks.rows.items():
            instants[which].append(due_at)
            has_task = task_id in self._table.done or task_id in self._ledger.taken
            require((outcome == "task") == has_task, Rule.TICKS, f"{name(task_id)} of {which} is {outcome}")
        for which, schedule in self._schedules.items():
            decided, expected = sorted(instants[which]), list[float]()
            at: float | None = decided[0] if decided else None
            while at is not None:
                expected.append(at)
                at = schedule.plan.after(at)
            require(decided == expected, Rule.TICKS, f"{len(decided)} ticks of {which}, {len(expected)} were due")
            require(decided, Rule.TICKS, f"{which} has no tick")
