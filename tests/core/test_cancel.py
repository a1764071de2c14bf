"""A task is cancelled, and a task says itself how it goes on."""

from asyncproc.core.cancel import GRACE_S
from asyncproc.core.decision import CancelReply, PollReply
from asyncproc.core.events import FAILED_FOR_GOOD, RETRY_LATER, SNOOZED, CancelAsked, Outcome
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from simulation.world import ONCE, Granted, World, copy_of, failed, killed, succeeded


def ask(world: World, task: TaskId, grace_s: float = 5.0) -> CancelReply:
    ticket = world.ticket()
    world.turn(CancelAsked(ticket, copy_of(world.row(task)), "enough", grace_s))
    reply = world.answers[ticket]
    assert isinstance(reply, CancelReply)
    return reply


def stops(world: World, ticket: int) -> list[tuple[TaskId, int, float]]:
    reply = world.answers[ticket]
    assert isinstance(reply, PollReply)
    return reply.stops


def running(world: World) -> Granted:
    return world.lease(world.enqueue(), worker="w")


def said(ending: int, when: float) -> Outcome:
    return (b"", 0, ending, b'{"type":"X","message":"x","traceback":""}', "X: x", 1.0, when, [])


def test_a_task_that_is_ready_is_cancelled_at_once() -> None:
    world = World()
    first, second = world.enqueue_all([world.new(), world.new()])
    reply = ask(world, first)
    assert (reply.refused, reply.is_running, reply.stale) == (None, False, False)
    assert world.state(first) is State.CANCELLED
    assert world.table.bodies[first] == b"enough"
    assert [lease.task for lease in world.take("w")] == [second]


def test_a_task_that_is_due_later_or_retries_is_cancelled_at_once() -> None:
    world = World()
    later = world.enqueue(delay_s=60)
    lease = running(world)
    world.report(lease, failed())
    for task in (later, lease.task):
        ask(world, task)
        assert world.state(task) is State.CANCELLED
    world.wait(120)
    assert world.take("w") == []


def test_a_task_that_is_on_disk_alone_is_cancelled_at_once() -> None:
    world = World(CoreSettings(window=2))
    tasks = world.enqueue_all([world.new() for _ in range(10)])
    assert tasks[9] not in world.core.tasks
    ask(world, tasks[9])
    assert world.state(tasks[9]) is State.CANCELLED


def test_a_suspect_is_cancelled_at_once() -> None:
    world = World()
    lease = running(world)
    world.lose("w")
    ask(world, lease.task)
    assert world.state(lease.task) is State.CANCELLED
    assert world.take("v") == []


def test_a_task_that_has_ended_says_so() -> None:
    world = World()
    lease = running(world)
    world.report(lease, succeeded())
    assert ask(world, lease.task).refused is State.SUCCEEDED


def test_a_running_task_is_asked_and_cancelled_when_it_ends() -> None:
    world = World()
    lease = running(world)
    ticket = world.poll("w")

    assert ask(world, lease.task, grace_s=7.0).is_running
    assert stops(world, ticket) == [(lease.task, lease.number, 7.0)]
    assert world.state(lease.task) is State.RUNNING

    world.report(lease, failed())
    assert world.state(lease.task) is State.CANCELLED
    assert world.table.bodies[lease.task] == b"enough"


def test_who_has_no_poll_open_is_asked_with_its_next() -> None:
    world = World()
    lease = running(world)
    ask(world, lease.task)
    assert stops(world, world.poll("w")) == [(lease.task, lease.number, 5.0)]


def test_a_success_that_comes_first_stands() -> None:
    world = World()
    lease = running(world)
    ask(world, lease.task)
    world.report(lease, succeeded())
    assert world.state(lease.task) is State.SUCCEEDED


def test_neither_a_killed_process_nor_a_dead_worker_brings_it_back() -> None:
    world = World()
    for number, ends in enumerate(("killed", "lost", "handed back")):
        lease = world.lease(world.enqueue(), worker=f"w{number}")
        ask(world, lease.task)
        if ends == "killed":
            world.report(lease, killed())
        elif ends == "lost":
            world.lose(lease.worker)
        else:
            world.give_back([lease])
        assert world.state(lease.task) is State.CANCELLED
    world.enqueue()
    assert [lease[8] for lease in world.leases(world.poll("next")) or []] == [False], "nobody is suspected for it"


def test_the_wish_outlives_the_queue_actor() -> None:
    world = World()
    lease = running(world)
    ask(world, lease.task)
    world.restart()
    world.register("w", lease)
    assert stops(world, world.poll("w")) == [(lease.task, lease.number, GRACE_S)]
    world.report(lease, failed())
    assert world.state(lease.task) is State.CANCELLED


def test_a_worker_that_registers_anew_is_reminded() -> None:
    world = World()
    lease = running(world)
    world.poll("w")
    ask(world, lease.task)
    world.register("w", lease)
    assert stops(world, world.poll("w")) == [(lease.task, lease.number, GRACE_S)]


# ---- what a task says itself


def test_a_task_that_says_when_is_tried_again_then() -> None:
    world = World()
    lease = running(world)
    world.report(lease, said(RETRY_LATER, 40.0))
    row = world.row(lease.task)
    assert (row.state, row.attempt, row.ready_at) == (State.RETRYING, 1, world.now + 40.0)


def test_the_last_attempt_fails_whatever_it_says() -> None:
    world = World()
    lease = world.lease(world.enqueue(retry=ONCE), worker="w")
    world.report(lease, said(RETRY_LATER, 40.0))
    assert world.state(lease.task) is State.FAILED


def test_a_task_that_would_fail_again_is_not_tried_again() -> None:
    world = World()
    lease = running(world)
    world.report(lease, said(FAILED_FOR_GOOD, 0.3))
    assert world.state(lease.task) is State.FAILED


def test_a_task_that_snoozes_is_charged_nothing() -> None:
    world = World()
    lease = running(world)
    world.report(lease, said(SNOOZED, 40.0))
    row = world.row(lease.task)
    assert (row.state, row.attempt, row.ready_at) == (State.SCHEDULED, 0, world.now + 40.0)
    world.lose("w")
    world.wait(39)
    assert world.state(lease.task) is State.SCHEDULED
    world.wait(1.001)
    (again,) = world.take("v")
    assert (again.task, again.attempt, again.number) == (lease.task, 1, 2)


def test_a_task_that_snoozes_when_it_was_asked_to_end_is_cancelled() -> None:
    world = World()
    lease = running(world)
    ask(world, lease.task)
    world.report(lease, said(SNOOZED, 40.0))
    assert world.state(lease.task) is State.CANCELLED
