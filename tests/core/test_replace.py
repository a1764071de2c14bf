"""A task that waits gets the content of another, in memory and on disk, and whatever happened meanwhile."""

from dataclasses import replace
from typing import Any

import pytest

from asyncproc.core.decision import EnqueueReply
from asyncproc.core.events import Enqueued, Event
from asyncproc.core.retry import constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.task import NewTask, Options, Task, TaskId, Terms
from simulation.world import NOON, World, failed, succeeded

OPTIONS = Options("Short", "images", 3, constant(2, 1.0), "me")


def content(task_id: TaskId, payload: bytes = b'"new"', delay_s: float = 0.0, **terms: Any) -> NewTask:
    return (task_id, payload, OPTIONS, delay_s, Terms(unique_key="k", **terms))


class Replacing(World):
    def read(self, task: TaskId) -> Task:
        return replace(self.row(task))

    def replace(self, read: Task, new: NewTask, *others: Event, tasks: list[NewTask] | None = None) -> EnqueueReply:
        ticket = self.ticket()
        self.turn(*others, Enqueued(ticket, tasks or [], replaced=[(read, new)]))
        reply = self.answers[ticket]
        assert isinstance(reply, EnqueueReply)
        return reply


@pytest.fixture
def world() -> Replacing:
    return Replacing(CoreSettings(prefetch_s=0.0))


@pytest.fixture
def shallow() -> Replacing:
    """Of each queue four tasks at most are in memory."""
    return Replacing(CoreSettings(prefetch_s=0.0, window=4))


def test_a_task_that_waits_has_all_of_the_other_but_its_id(world: Replacing) -> None:
    task = world.enqueue()

    reply = world.replace(world.read(task), content(task, start_by=NOON + 60.0))

    row = world.row(task)
    assert (reply.replaced, reply.stale) == ([task], False)
    assert (row.payload, row.options, row.terms) == (b'"new"', OPTIONS, Terms(NOON + 60.0, unique_key="k"))
    assert row.state is State.QUEUED
    (lease,) = world.take("w")
    assert world.core.tasks[lease.task].payload == b'"new"'


def test_it_waits_until_the_new_instant(world: Replacing) -> None:
    task = world.enqueue()

    world.replace(world.read(task), content(task, delay_s=5.0))
    assert (world.row(task).state, world.take("w")) == (State.SCHEDULED, [])
    world.replace(world.read(task), content(task, run_at=NOON + 9.0))
    assert world.row(task).ready_at == NOON + 9.0
    world.replace(world.read(task), content(task))

    assert world.row(task).state is not State.SCHEDULED


def test_one_that_failed_before_has_all_its_attempts_again(world: Replacing) -> None:
    task = world.enqueue()
    (lease,) = world.take("w")
    world.report(lease, failed())
    assert world.row(task).state is State.RETRYING

    world.replace(world.read(task), content(task, delay_s=1.0))

    row = world.row(task)
    assert (row.state, row.attempt, row.lease) == (State.SCHEDULED, 0, 1)


def test_one_that_runs_is_stale_and_nothing_of_the_event_is_done(world: Replacing) -> None:
    task = world.enqueue()
    read = world.read(task)
    (lease,) = world.take("w")
    other = content(b"o" * 16)

    reply = world.replace(read, content(task), tasks=[other])

    assert (reply.stale, reply.replaced) == (True, ())
    assert b"o" * 16 not in world.core.tasks
    assert world.row(task).payload != b'"new"'
    world.report(lease, succeeded())


def test_one_that_another_changed_in_the_same_step_is_stale(world: Replacing) -> None:
    task = world.enqueue()
    read = world.read(task)

    first = Enqueued(world.ticket(), [], replaced=[(read, content(task, b'"first"'))])
    reply = world.replace(read, content(task), first)

    assert reply.stale
    assert world.row(task).payload == b'"first"'


def test_one_on_disk_is_replaced_there(shallow: Replacing) -> None:
    tasks = [shallow.enqueue() for _ in range(12)]
    last = tasks[-1]
    assert last not in shallow.core.tasks

    assert not shallow.replace(shallow.read(last), content(last)).stale

    assert shallow.row(last).options == OPTIONS
    taken: list[TaskId] = []
    leases = shallow.take("w")
    while leases:
        taken += [lease.task for lease in leases]
        leases = shallow.report(leases[0], succeeded())
    assert sorted(taken) == tasks


def test_a_large_payload_is_left_to_the_disk(world: Replacing) -> None:
    task = world.enqueue()
    large = b"x" * (world.core.settings.large_bytes + 1)

    world.replace(world.read(task), content(task, large))
    world.turn()

    assert (world.core.tasks[task].payload, world.core.tasks[task].left_out) == (b"", len(large))
    world.replace(world.read(task), content(task))
    assert (world.core.tasks[task].payload, world.core.tasks[task].left_out) == (b'"new"', 0)
