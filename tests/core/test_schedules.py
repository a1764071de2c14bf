"""Ticks become tasks: each once, in time or by what its schedule says of those that are late."""

from dataclasses import replace
from typing import Any

import pytest

from asyncproc.core.decision import TicksReply
from asyncproc.core.events import RulesChanged, SchedulesChanged, TicksAsked
from asyncproc.core.schedule import MAX_LINE, CatchUp, Overlap, Schedule, Tick
from asyncproc.core.schedules import MAX_TICKS_A_STEP
from asyncproc.core.states import State
from asyncproc.core.steering import Rules
from asyncproc.core.task import Options, TaskId
from simulation.timetable import Every
from simulation.world import NOON, THRICE, Granted, World, succeeded

OPTIONS = Options("Work", "default", 0, THRICE, "schedule s")
MINUTE = 60.0
HOUR = 3600.0


def a_schedule(every_s: float = MINUTE, name: str = "s", **changes: Any) -> Schedule:
    given = {"overlap": Overlap.ALLOW, "stamp": f"every {every_s}", **changes}
    return Schedule(name, Every(every_s), OPTIONS, b"{}", **given)


class Clockwork(World):
    """A world whose schedules are read anew by each reign, as from the table."""

    def __init__(self, *schedules: Schedule) -> None:
        self.schedules: dict[str, Schedule] = {}
        self.granted_next: list[Granted] = []
        super().__init__()
        self.set(*schedules)

    def restart(self) -> None:
        super().restart()
        self.turn(SchedulesChanged(self.ticket(), dict(self.schedules), is_all=True))

    def set(self, *schedules: Schedule) -> None:
        new = {schedule.name: schedule for schedule in schedules}
        self.schedules.update(new)
        self.turn(SchedulesChanged(self.ticket(), new))

    def drop(self, name: str) -> None:
        del self.schedules[name]
        self.turn(SchedulesChanged(self.ticket(), {name: None}))

    def ask(self, *ticks: Tick, name: str = "s") -> int:
        ticket = self.ticket()
        self.turn(TicksAsked(ticket, name, ticks))
        reply = self.answers[ticket]
        assert isinstance(reply, TicksReply)
        return reply.decided

    def made(self, name: str = "s") -> list[float]:
        """The instants of ticks whose task is there, from noon."""
        for task_id, row in self.table.ticks.rows.items():
            assert (row[3] == "task") == (task_id in self.table.live or task_id in self.table.done)
        return [at - NOON for at in self.table.ticks.of(name)]

    def skipped(self, outcome: str = "skipped") -> list[float]:
        return [at - NOON for at in self.table.ticks.of("s", outcome)]

    def end(self) -> TaskId:
        """A worker runs the one task that is ready; the answer may bring it the next one."""
        (lease,) = self.granted_next or self.take("w")
        self.granted_next = self.report(lease, succeeded())
        return lease.task


def test_each_tick_is_one_task() -> None:
    world = Clockwork(a_schedule())
    world.wait(5 * MINUTE)
    assert world.made() == [60, 120, 180, 240, 300]
    assert {row.options for row in world.table.live.values()} == {OPTIONS}


def test_a_tick_makes_no_task_in_a_queue_that_is_drained() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.QUEUE))
    world.wait(2 * MINUTE)
    world.turn(RulesChanged(world.ticket(), Rules(draining=frozenset({"default"}))))
    world.wait(MINUTE)
    world.end()  # and the turn of those that wait for it comes
    world.wait(MINUTE)
    assert (world.made(), world.skipped("drained"), world.skipped("waiting")) == ([60], [120, 180, 240], [])
    world.turn(RulesChanged(world.ticket(), Rules()))
    world.wait(MINUTE)
    assert world.made() == [60, 300]


def test_a_tick_goes_to_a_worker_that_waits_in_its_own_step() -> None:
    world = Clockwork(a_schedule())
    world.wait(MINUTE - 5)
    world.poll("w")
    world.wait(5)
    assert [task.state for task in world.table.live.values()] == [State.RUNNING]


def test_a_restart_neither_repeats_nor_loses_a_tick() -> None:
    world = Clockwork(a_schedule(7.0))
    for _ in range(10):
        world.wait(10.5)
        world.now += 20.0  # nobody reigns
        world.restart()
    world.wait(0.0)
    made = world.made()
    assert made == sorted(set(made))
    assert len(made) == world.now // 7 - NOON // 7


@pytest.mark.parametrize(
    ("catch_up", "made", "missed"),
    [
        (CatchUp.NONE, [2 * HOUR - 1800], [1800]),
        (CatchUp.LAST, [2 * HOUR - 1800], [1800]),
        (CatchUp.ALL, [3600, 5400, 7200], [1800]),
    ],
)
def test_what_nobody_was_there_for(catch_up: CatchUp, made: list[float], missed: list[float]) -> None:
    """Down for two hours, with a tick each half hour and 50 s late for the last one."""
    world = Clockwork(a_schedule(1800.0, catch_up=catch_up, within_s=HOUR + 100))
    world.now = NOON + 2 * HOUR + 50
    world.restart()
    world.wait(0.0)
    if catch_up is not CatchUp.ALL:
        made = [2 * HOUR]
    assert world.made() == made
    assert world.skipped("missed") == missed


@pytest.mark.parametrize(
    ("catch_up", "made"), [(CatchUp.NONE, []), (CatchUp.LAST, [5400]), (CatchUp.ALL, [3600, 5400])]
)
def test_what_is_too_late_to_be_on_time(catch_up: CatchUp, made: list[float]) -> None:
    world = Clockwork(a_schedule(1800.0, catch_up=catch_up, within_s=HOUR))
    world.now = NOON + 2 * HOUR - 100
    world.restart()
    world.wait(0.0)
    assert world.made() == made
    assert world.skipped("missed") == [1800]
    world.wait(HOUR)
    assert world.made() == [*made, 2 * HOUR, 2.5 * HOUR]


def test_many_that_are_due_at_once_are_made_over_several_steps() -> None:
    world = Clockwork(a_schedule(1.0, catch_up=CatchUp.ALL))
    world.now = NOON + 3 * MAX_TICKS_A_STEP
    world.restart()
    world.wait(0.0)
    assert len(world.made()) == 3 * MAX_TICKS_A_STEP
    assert max(len(decision.writes.ticks) for decision in world.decisions) == MAX_TICKS_A_STEP


def test_a_tick_is_skipped_while_the_task_before_it_has_not_ended() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.SKIP))
    world.wait(2 * MINUTE)
    world.end()
    world.wait(MINUTE)
    assert world.made() == [60, 180]
    assert world.skipped() == [120]
    world.restart()
    world.wait(MINUTE)
    assert world.skipped() == [120, 240]


def test_a_cancelled_task_is_an_ended_one() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.QUEUE))
    world.wait(2 * MINUTE)
    assert (world.made(), world.skipped("waiting")) == ([60], [120])
    (task,) = world.table.live
    world.core.schedules.gone([task])
    world.wait(0.0)
    world.turn()
    assert world.made() == [60, 120]


def test_ticks_wait_in_line_through_a_restart() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.QUEUE, catch_up=CatchUp.NONE))
    world.wait(3 * MINUTE)
    assert world.skipped("waiting") == [120, 180]
    world.now += HOUR - 3 * MINUTE - 1
    world.restart()
    assert world.skipped("waiting") == [120, 180, 3540]
    first = world.end()
    assert len(world.table.live) == 1
    second = world.end()
    assert world.made() == [60, 120, 180]
    assert first != second


def test_a_line_is_bounded() -> None:
    world = Clockwork(a_schedule(1.0, overlap=Overlap.QUEUE))
    world.wait(MAX_LINE + 3.0)
    assert len(world.skipped("waiting")) == MAX_LINE
    assert len(world.skipped()) == 2


def test_another_overlap_lets_go_of_the_line() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.QUEUE))
    world.wait(3 * MINUTE)
    world.set(replace(world.schedules["s"], overlap=Overlap.ALLOW))
    world.turn()
    assert world.made() == [60, 120, 180]


def test_a_paused_schedule_makes_nothing_and_what_was_due_is_over() -> None:
    world = Clockwork(a_schedule())
    world.set(a_schedule(paused_until=0.0, stamp="paused"))
    world.wait(5 * MINUTE)
    world.restart()
    world.set(a_schedule(catch_up=CatchUp.ALL))
    world.wait(MINUTE)
    assert world.made() == [360]


def test_a_pause_may_end_by_itself() -> None:
    world = Clockwork(a_schedule(paused_until=NOON + 150, stamp="paused", overlap=Overlap.QUEUE))
    world.restart()
    world.wait(4 * MINUTE)
    assert world.made() == [180]
    assert world.skipped("waiting") == [240]


def test_another_plan_begins_now() -> None:
    world = Clockwork(a_schedule(HOUR))
    world.wait(90 * MINUTE)
    world.now += 40 * MINUTE
    world.schedules["s"] = a_schedule(7.0, catch_up=CatchUp.ALL)
    world.restart()
    world.wait(7.0)
    assert len(world.made()) == 2


def test_what_is_asked_for_is_made_whatever_the_overlap() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.SKIP))
    world.wait(MINUTE)
    assert world.ask(Tick(b"a" * 16, NOON - 5, "trigger"), Tick(b"b" * 16, NOON - 6, "backfill")) == 2
    assert world.made() == [60, -5, -6]
    assert world.ask(Tick(b"c" * 16, NOON), name="other") == 0


def test_what_is_asked_for_takes_its_place_in_the_line() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.QUEUE))
    world.ask(Tick(b"a" * 16, NOON - 5, "backfill"), Tick(b"b" * 16, NOON - 6, "backfill"))
    assert world.made() == [-5]
    world.end()
    assert world.made() == [-5, -6]


def test_one_that_is_deleted_leaves_nothing() -> None:
    world = Clockwork(a_schedule(overlap=Overlap.QUEUE), a_schedule(name="t"))
    world.wait(3 * MINUTE)
    world.drop("s")
    assert world.table.ticks.positions.keys() == {"t"}
    assert world.skipped("waiting") == []
    world.end()
    world.wait(MINUTE)
    assert world.made() == [60]
    del world.schedules["t"]
    world.restart()
    assert world.table.ticks.positions == {}
    assert world.core.schedules.next_at() is None


def test_the_instant_is_put_into_the_payload() -> None:
    schedule = a_schedule(instant_field=b'"at"')
    world = Clockwork(schedule, replace(schedule, name="t", payload=b'{"n":1}'))
    world.wait(MINUTE)
    at = b"%d" % (NOON + 60)
    assert {row.payload for row in world.table.live.values()} == {b'{"at":"%b"}' % at, b'{"n":1,"at":"%b"}' % at}
