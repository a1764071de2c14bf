"""Tasks that are over by an instant of their own."""

import json

import pytest

from asyncproc.core.decision import BulkReply
from asyncproc.core.events import OverdueFound, RulesChanged
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import Pause, Rules
from asyncproc.core.task import NewTask, TaskId, Terms, TimeLimits
from simulation.world import NOON, World, copy_of, failed, succeeded


def bound(world: World, start_by: float = 0.0, deadline: float = 0.0, **options: object) -> NewTask:
    new = world.new(**options)  # type: ignore[arg-type]
    return (*new[:4], Terms(start_by, deadline))


def look(world: World, *tasks: TaskId) -> BulkReply:
    """What the caretaker found in the table is brought to the core."""
    ticket = world.ticket()
    world.turn(OverdueFound(ticket, [copy_of(world.row(task)) for task in tasks]))
    reply = world.answers[ticket]
    assert isinstance(reply, BulkReply)
    return reply


def test_a_task_that_did_not_start_in_time_is_cancelled_and_another_one_runs() -> None:
    world = World()
    late, other = world.enqueue_all([bound(world, start_by=NOON + 5), world.new()])
    world.wait(6)
    assert [lease.task for lease in world.take("w")] == [other]
    assert world.state(late) is State.CANCELLED
    assert world.table.bodies[late] == b"it expired: it had not begun by its startBy"


def test_a_task_that_started_in_time_may_be_tried_again_later() -> None:
    world = World()
    (task,) = world.enqueue_all([bound(world, start_by=NOON + 2)])
    world.report(world.lease(task, "w"), failed())
    world.lose("w")
    world.wait(6)
    assert [lease.task for lease in world.take("v")] == [task]


def test_a_task_past_its_deadline_fails() -> None:
    world = World()
    (task,) = world.enqueue_all([bound(world, deadline=NOON + 5)])
    world.wait(6)
    assert world.take("w") == []
    assert world.state(task) is State.FAILED
    assert json.loads(world.table.bodies[task])["type"] == "DeadlineExceeded"


def test_no_attempt_is_made_that_would_begin_after_the_deadline() -> None:
    world = World()
    (task,) = world.enqueue_all([bound(world, deadline=NOON + 4)])
    world.report(world.lease(task, "w"), failed())
    assert world.state(task) is State.FAILED


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(0.0, 10.0), (3.0, 3.0), (60.0, 10.0)])
def test_an_attempt_has_no_more_time_than_its_deadline_leaves(timeout_s: float, limit_s: float) -> None:
    world = World()
    world.register("w")
    world.enqueue_all([bound(world, deadline=NOON + 10, limits=TimeLimits(timeout_s))])
    (lease,) = world.leases(world.poll("w")) or []
    assert (lease[7].timeout_s, lease[7].last_s) == (limit_s, 10.0)


def test_a_success_at_the_last_moment_counts() -> None:
    world = World()
    (task,) = world.enqueue_all([bound(world, start_by=NOON + 1, deadline=NOON + 2)])
    lease = world.lease(task, "w")
    world.wait(3)
    world.report(lease, succeeded())
    assert world.state(task) is State.SUCCEEDED


def test_what_never_comes_up_expires_all_the_same() -> None:
    world = World(CoreSettings(window=2))
    world.turn(RulesChanged(world.ticket(), Rules(pauses=(Pause("queue", "default"),))))
    tasks = world.enqueue_all([bound(world, start_by=NOON + 5) for _ in range(10)])
    later = world.enqueue_all([bound(world, deadline=NOON + 5, delay_s=60)])
    assert look(world, *tasks, *later).done == []
    world.wait(6)
    assert look(world, *tasks, *later).done == [*tasks, *later]
    assert {world.state(task) for task in tasks} == {State.CANCELLED}
    assert world.state(later[0]) is State.FAILED


def test_what_runs_or_has_ended_is_left_alone() -> None:
    world = World()
    (task,) = world.enqueue_all([bound(world, deadline=NOON + 5)])
    old = copy_of(world.row(task))
    lease = world.lease(task, "w")
    world.wait(6)
    ticket = world.ticket()
    world.turn(OverdueFound(ticket, [old]))
    assert world.state(task) is State.RUNNING
    world.report(lease, succeeded())
    world.turn(OverdueFound(world.ticket(), [old]))
    assert world.state(task) is State.SUCCEEDED
