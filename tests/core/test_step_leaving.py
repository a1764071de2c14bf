"""A worker that ends on purpose: what it is given, and what becomes of what it holds."""

import json

from asyncproc.core.events import Polled
from asyncproc.core.states import State
from asyncproc.core.task import TimeLimits
from simulation.world import ONCE, World, succeeded


def leave(world: World, worker: str = "a") -> int:
    ticket = world.ticket()
    world.turn(Polled(ticket, worker, world.sessions[worker], [], leaving=True))
    return ticket


def test_a_worker_that_leaves_is_answered_at_once_and_given_nothing_more() -> None:
    world = World()
    parked = world.poll("a")
    assert world.leases(leave(world)) == []
    task = world.enqueue()
    assert world.parked(parked)
    assert world.state(task) is State.QUEUED


def test_what_runs_on_a_worker_that_leaves_may_end() -> None:
    world = World()
    world.register("a")
    world.enqueue()
    (lease,) = world.take("a")
    leave(world)
    world.report(lease, succeeded())
    assert world.state(lease.task) is State.SUCCEEDED


def test_the_end_of_a_worker_that_left_makes_no_suspects() -> None:
    world = World()
    world.register("a", concurrency=2)
    world.enqueue_all([world.new(retry=ONCE) for _ in range(2)])
    leases = world.take("a")
    leave(world)
    world.lose("a")
    rows = [world.row(lease.task) for lease in leases]
    assert [(row.state, row.attempt, row.losses) for row in rows] == [(State.QUEUED, 0, 0)] * 2


def test_a_suspect_does_not_wait_for_a_worker_that_leaves() -> None:
    world = World()
    world.register("a", concurrency=2)
    world.enqueue_all([world.new() for _ in range(2)])
    suspects = world.take("a")
    world.register("b", concurrency=1)
    world.lose("a")
    leave(world, "b")
    assert world.take("c")[0].task in {lease.task for lease in suspects}


def test_who_kills_its_worker_alone_after_its_time_limit_fails_by_that() -> None:
    world = World()
    task = world.enqueue(retry=ONCE, limits=TimeLimits(timeout_s=5.0))
    for worker in "ab":
        world.lease(task, worker)
        world.wait(6.0)
        world.lose(worker)
    assert world.state(task) is State.FAILED
    record = json.loads(world.table.bodies[task])
    assert record["type"] == "TimeLimitExceeded"
    assert record["message"] == "the attempt could not be stopped after 5 s, its time limit: killed by signal 9"


def test_who_kills_its_worker_within_its_time_limit_fails_as_one_that_kills() -> None:
    world = World()
    task = world.enqueue(retry=ONCE, limits=TimeLimits(timeout_s=5.0))
    for worker in "ab":
        world.lease(task, worker)
        world.wait(1.0)
        world.lose(worker)
    assert json.loads(world.table.bodies[task])["type"] == "WorkerDied"
