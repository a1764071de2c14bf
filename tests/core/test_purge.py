"""A purge cancels what waits, whatever has become of it since the table was read."""

from asyncproc.core.decision import PurgeReply
from asyncproc.core.events import Purged, QueueReranked
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from simulation.world import World, succeeded


def purge(world: World, *tasks: TaskId, lease: int = 0, queue: str = "default") -> int:
    ticket = world.ticket()
    world.turn(Purged(ticket, queue, [(task, lease) for task in tasks], "purged"))
    reply = world.answers[ticket]
    assert isinstance(reply, PurgeReply)
    return reply.cancelled


def test_what_is_ready_and_what_is_due_later_is_cancelled() -> None:
    world = World()
    ready, later = world.enqueue(), world.enqueue(delay_s=60)
    assert purge(world, ready, later) == 2
    assert [world.state(task) for task in (ready, later)] == [State.CANCELLED] * 2
    assert world.core.tasks == {}


def test_what_is_on_disk_alone_is_cancelled() -> None:
    world = World(CoreSettings(window=2))
    tasks = world.enqueue_all([world.new() for _ in range(20)])
    assert len(world.core.tasks) < 20
    assert purge(world, *tasks) == 20
    assert {world.state(task) for task in tasks} == {State.CANCELLED}


def test_what_began_meanwhile_goes_on() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    assert purge(world, lease.task) == 0
    world.report(lease, succeeded())
    assert world.state(lease.task) is State.SUCCEEDED


def test_what_ended_meanwhile_stays_as_it_ended() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.report(lease, succeeded())
    purge(world, lease.task)
    assert world.state(lease.task) is State.SUCCEEDED


def test_what_came_back_from_a_lost_worker_is_cancelled_under_its_new_lease() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.lose("a")
    assert purge(world, lease.task) == 1
    assert world.state(lease.task) is State.CANCELLED


def test_what_is_in_another_queue_now_is_left_alone() -> None:
    world = World()
    task = world.enqueue()
    assert purge(world, task, queue="other") == 0
    assert world.state(task) is State.QUEUED


def test_a_worker_that_waits_gets_what_comes_after_a_purge() -> None:
    world = World()
    world.register("a")
    tasks = world.enqueue_all([world.new() for _ in range(3)])
    purge(world, *tasks)
    assert world.lease(world.enqueue(), worker="a").attempt == 1


def test_ranks_that_were_computed_anew_are_the_order_in_memory() -> None:
    world = World(CoreSettings(window=4))
    tasks = world.enqueue_all([world.new() for _ in range(10)])
    for number, task in enumerate(reversed(tasks)):
        row = world.table.live[task]
        row.rank = float(number)
    world.tampered = True
    world.turn(QueueReranked("default"))
    world.register("a", concurrency=10)
    assert [lease.task for lease in world.take("a")] == list(reversed(tasks))[:3]


def test_a_lane_that_was_taken_for_empty_while_ranks_were_mixed_is_read_again() -> None:
    world = World()
    task = world.enqueue()
    key = next(iter(world.core.backlog.stream("default").lanes))
    world.core.backlog.forget([task])
    world.core.backlog.stream("default").lanes.clear()
    world.tampered = True
    world.turn(QueueReranked("default", [key]))
    assert task in world.core.tasks
