import json

import pytest

from asyncproc.core.dangers import TAKEN_ALONG
from asyncproc.core.events import Polled, WorkerLost
from asyncproc.core.retry import constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from simulation.world import ONCE, Granted, World, failed, succeeded


def aboard(world: World, number: int, worker: str = "a") -> list[Granted]:
    world.register(worker, concurrency=number)
    world.enqueue_all([world.new(retry=ONCE) for _ in range(number)])
    return world.take(worker)


def test_a_lost_attempt_is_not_charged_and_keeps_its_rank() -> None:
    world = World()
    (lease,) = aboard(world, 1)
    rank = world.row(lease.task).rank
    world.wait(20)
    world.lose("a")
    row = world.row(lease.task)
    assert (row.state, row.rank, row.attempt, row.lease, row.losses) == (State.QUEUED, rank, 0, 1, 1)
    assert world.core.counters.lost == 1


def test_the_lease_after_a_loss_is_a_new_one_of_the_same_attempt() -> None:
    world = World()
    (lost,) = aboard(world, 1)
    world.lose("a")
    current = world.lease(lost.task, worker="b")
    assert (current.number, current.attempt) == (lost.number + 1, lost.attempt)


def test_of_several_aboard_none_is_charged() -> None:
    world = World()
    leases = aboard(world, 3)
    world.lose("a")
    assert [world.state(lease.task) for lease in leases] == [State.QUEUED] * 3


def test_who_dies_alone_with_a_suspect_proves_it() -> None:
    world = World()
    guilty, *others = aboard(world, 3)
    world.lose("a")
    assert world.lease(guilty.task, worker="b")
    world.lose("b")
    assert world.state(guilty.task) is State.FAILED
    record = json.loads(world.table.bodies[guilty.task])
    assert record == {"type": "WorkerDied", "message": "killed by signal 9", "traceback": ""}
    innocent = world.take("c")
    while innocent:
        innocent = world.report(innocent[0], succeeded())
    assert [world.state(other.task) for other in others] == [State.SUCCEEDED] * 2


def test_a_proven_pill_is_charged_each_time_until_its_attempts_are_used_up() -> None:
    world = World()
    task = world.enqueue(retry=constant(2, backoff_s=1))
    for worker in "abc":
        world.wait(2)
        world.lease(task, worker)
        world.lose(worker)
    assert world.state(task) is State.FAILED
    assert world.row(task).attempt == 2


def test_who_dies_together_with_the_queue_actor_is_suspected_and_charged_only_when_it_never_survives() -> None:
    world = World()
    task = world.enqueue(retry=ONCE)
    for losses in range(1, TAKEN_ALONG + 1):
        world.lease(task, worker=f"w{losses}")
        world.restart()
        world.lose(f"w{losses}", proof=TAKEN_ALONG)
        assert (world.state(task), world.row(task).losses) == (State.QUEUED, losses)
    world.lease(task, worker="last")
    world.restart()
    world.lose("last", proof=TAKEN_ALONG)
    assert world.state(task) is State.FAILED


def test_a_worker_ended_on_purpose_makes_no_suspects() -> None:
    world = World()
    leases = aboard(world, 2)
    world.lose("a", charged=False)
    assert [world.row(lease.task).losses for lease in leases] == [0, 0]
    world.register("b", concurrency=2)
    assert len(world.take("b")) == 2


def test_a_suspect_whose_worker_is_ended_on_purpose_is_not_charged() -> None:
    world = World()
    (lease,) = aboard(world, 1)
    world.lose("a")
    world.lease(lease.task, worker="b")
    world.lose("b", charged=False)
    assert world.state(lease.task) is State.QUEUED
    assert world.row(lease.task).losses == 1


def test_an_attempt_that_ends_clears_the_suspicion() -> None:
    world = World()
    task = world.enqueue(retry=constant(2, backoff_s=1))
    world.lease(task, worker="a")
    world.lose("a")
    world.report(world.lease(task, worker="b"), failed())
    assert world.row(task).losses == 0
    world.wait(2)
    world.lease(task, worker="c")
    world.lose("c")
    assert world.state(task) is State.QUEUED


def test_the_polls_of_a_lost_worker_are_answered_once() -> None:
    world = World()
    ticket = world.poll("a")
    world.lose("a")
    assert world.leases(ticket) is None


def test_a_report_in_the_cycle_of_its_workers_loss_counts() -> None:
    world = World()
    (lease,) = aboard(world, 1)
    ticket = world.ticket()
    outcome = (lease.task, lease.number, *succeeded()[2:])
    world.turn(Polled(ticket, "a", world.sessions["a"], [outcome]), WorkerLost("a", "gone"))
    assert world.state(lease.task) is State.SUCCEEDED
    assert world.leases(ticket) is None


def test_losing_a_worker_that_nobody_knows_changes_nothing() -> None:
    world = World()
    world.lose("stranger")
    assert world.core.counters.lost == 0


def test_a_silent_worker_is_lost() -> None:
    world = World(CoreSettings(poll_s=10, silence_s=30))
    (lease,) = aboard(world, 1)
    world.wait(39)
    assert world.state(lease.task) is State.RUNNING
    world.wait(2)
    assert world.state(lease.task) is State.QUEUED
    assert world.core.workers == {}


def test_a_worker_that_keeps_a_poll_open_is_not_silent() -> None:
    world = World(CoreSettings(poll_s=10, silence_s=30))
    (lease,) = aboard(world, 1)
    for _ in range(10):
        world.poll("a")
        world.wait(39)
    assert world.state(lease.task) is State.RUNNING


@pytest.mark.parametrize("absence_s", [60.0, 600.0])
def test_while_postgres_is_away_no_worker_is_silent(absence_s: float) -> None:
    world = World(CoreSettings(poll_s=10, silence_s=30))
    (lease,) = aboard(world, 1)
    parked = world.poll("a")
    world.now += absence_s
    world.turn()
    assert world.leases(parked) == []
    world.wait(25)
    assert world.state(lease.task) is State.RUNNING
    world.wait(25)
    assert world.state(lease.task) is State.QUEUED


def test_a_name_that_comes_back_is_watched_once() -> None:
    assert wakes_of_a_name_that_came_back(times=5) == wakes_of_a_name_that_came_back(times=0)


def wakes_of_a_name_that_came_back(times: int) -> int:
    world = World(CoreSettings(poll_s=10))
    for _ in range(times):
        world.register("a")
        world.lose("a")
        world.now += 1
    world.register("a")
    world.wait(11)
    made = len(world.decisions)
    world.poll("a")
    world.wait(25)
    return len(world.decisions) - made
