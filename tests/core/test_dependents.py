"""Tasks that wait for tasks, in simulated time."""

from typing import Any

import pytest

from asyncproc.core.asked import Action, Change
from asyncproc.core.cancel import GRACE_S
from asyncproc.core.decision import BulkReply, CancelReply, ChangeReply
from asyncproc.core.events import BulkAsked, CancelAsked, ChangeAsked, OverdueFound
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.task import OnParentFailure, Parents, TaskId, Terms
from simulation.world import ONCE, World, copy_of, failed, succeeded


@pytest.fixture
def world() -> World:
    return World()


def child_of(world: World, *parents: TaskId, policy: str = "fail", delay_s: float = 0.0, **terms: Any) -> TaskId:
    given = Terms(parents=Parents(parents, OnParentFailure(policy)), **terms)
    return world.enqueue_all([(*world.new(delay_s=delay_s)[:4], given)])[0]


def test_a_child_starts_when_the_last_of_its_parents_has_succeeded(world: World) -> None:
    first, second = world.enqueue(), world.enqueue()
    child = child_of(world, first, second)
    one, two = world.lease(first, "a"), world.lease(second, "b")
    assert world.take("c") == []

    world.report(one, succeeded())
    assert world.state(child) is State.BLOCKED
    assert child not in world.core.tasks
    world.report(two, succeeded())

    assert world.row(child).worker == "c"


def test_a_child_keeps_the_instant_that_it_asked_for(world: World) -> None:
    parent = world.enqueue()
    child = child_of(world, parent, delay_s=60.0)
    world.wait(5.0)
    world.report(world.lease(parent, "a"), succeeded())
    assert world.state(child) is State.SCHEDULED
    assert world.take("b") == []

    world.wait(55.0)

    assert world.lease(child, "c")


@pytest.mark.parametrize(
    ("policy", "state"), [("fail", State.FAILED), ("skip", State.CANCELLED), ("run", State.RUNNING)]
)
def test_a_child_of_a_failed_parent_does_as_it_asked(world: World, policy: str, state: State) -> None:
    parent = world.enqueue(retry=ONCE)
    child = child_of(world, parent, policy=policy)
    grandchild = child_of(world, child)

    world.report(world.lease(parent, "a"), failed())

    world.take("a")
    assert world.state(child) is state
    assert world.state(grandchild) is (State.BLOCKED if policy == "run" else State.FAILED)


def test_children_too_many_for_one_commit_are_released_by_the_next_ones(world: World) -> None:
    world.table.edges.most = 2
    parent = world.enqueue()
    children = [child_of(world, parent) for _ in range(5)]
    before = len(world.decisions)

    world.report(world.lease(parent, "a"), succeeded())

    assert all(world.state(child) in {State.QUEUED, State.RUNNING} for child in children)
    asked = [decision.writes.parents for decision in world.decisions[before:] if decision.writes.parents]
    assert asked == [[parent]] * 3


def test_a_blocked_task_is_cancelled_and_not_changed(world: World) -> None:
    parent = world.enqueue()
    child, other = child_of(world, parent), child_of(world, parent, policy="skip")
    last = child_of(world, child, policy="skip")
    ticket = world.ticket()
    world.turn(ChangeAsked(ticket, copy_of(world.row(child)), Change(priority=3)))
    assert world.answers[ticket] == ChangeReply(ticket, child, refused=State.BLOCKED)

    ticket = world.ticket()
    world.turn(CancelAsked(ticket, copy_of(world.row(child)), "no", GRACE_S))
    assert world.answers[ticket] == CancelReply(ticket, child)
    assert (world.state(child), world.state(last)) == (State.CANCELLED, State.CANCELLED)

    ticket = world.ticket()
    world.turn(BulkAsked(ticket, Action.CANCEL, [copy_of(world.row(other))], reason="no"))
    assert world.answers[ticket] == BulkReply(ticket, done=[other])
    assert world.state(other) is State.CANCELLED


def test_a_blocked_task_expires(world: World) -> None:
    parent = world.enqueue()
    late = child_of(world, parent, deadline=world.now + 10)
    unstarted = child_of(world, parent, start_by=world.now + 10)
    world.wait(10.0)

    world.turn(OverdueFound(world.ticket(), [copy_of(world.row(late)), copy_of(world.row(unstarted))]))

    assert (world.state(late), world.state(unstarted)) == (State.FAILED, State.CANCELLED)


def test_where_nobody_depends_on_anybody_nothing_is_asked(world: World) -> None:
    world.report(world.lease(world.enqueue(), "a"), succeeded())
    assert all(not decision.writes.parents for decision in world.decisions)


def test_what_a_window_has_no_room_for_is_released_to_the_disk() -> None:
    world = World(CoreSettings(window=2))
    parent = world.enqueue()
    children = [child_of(world, parent) for _ in range(20)]
    ran = []
    leases = world.report(world.lease(parent, "a"), succeeded()) or world.take("a")
    while leases:
        ran.append(leases[0].task)
        assert len(world.core.tasks) <= 5
        leases = world.report(leases[0], succeeded()) or world.take("a")
    assert ran == children
