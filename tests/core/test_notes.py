"""What attempts note: on record while they run and with their end, and the checkpoint in the next one's lease."""

import pytest

from asyncproc.core.events import SNOOZED, Note, Outcome
from asyncproc.core.retry import constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from simulation.world import Granted, World, failed, succeeded

NOW = constant(3, backoff_s=0)


def note(lease: Granted, number: int = 1, checkpoint: bytes | None = b"[1]", progress: bytes | None = None) -> Note:
    return (lease.task, lease.number, number, progress, checkpoint, None)


def ended(lease: Granted, outcome: Outcome) -> Outcome:
    return (lease.task, lease.number, *outcome[2:])


def checkpoint_of(world: World, ticket: int) -> bytes | None:
    (lease,) = world.leases(ticket) or []
    return next(iter(lease[9:]), None)


def a_running(world: World) -> Granted:
    return world.lease(world.enqueue(retry=NOW), worker="a")


def test_a_note_is_answered_once_it_is_on_record_and_ends_nothing() -> None:
    world = World()
    lease = a_running(world)
    ticket = world.poll("a", notes=[note(lease)])
    assert world.leases(ticket) == []
    assert world.decisions[-1].writes.notes == [note(lease)]
    assert world.state(lease.task) is State.RUNNING


@pytest.mark.parametrize("ending", [failed(), (b"", 0, SNOOZED, b"", "", 1.0, 0.0, [])], ids=["failed", "snoozed"])
def test_what_is_noted_with_the_end_is_there_for_the_next_attempt(ending: Outcome) -> None:
    world = World()
    lease = a_running(world)
    ticket = world.poll("a", ended(lease, ending), notes=[note(lease, checkpoint=b'{"at": 7}')])
    assert checkpoint_of(world, ticket) == b'{"at": 7}'


def test_it_survives_the_loss_of_the_worker_and_of_the_queue_actor() -> None:
    world = World()
    lease = a_running(world)
    world.poll("a", notes=[note(lease)])
    world.restart()
    world.lose("a")
    assert checkpoint_of(world, world.poll("b")) == b"[1]"


def test_it_survives_the_disk() -> None:
    world = World(CoreSettings(window=1))
    lease = a_running(world)
    world.poll("a", notes=[note(lease)])
    others = [world.enqueue(priority=5) for _ in range(3)]
    world.lose("a", charged=False)
    assert lease.task not in world.core.tasks
    found: dict[TaskId, bytes | None] = {}
    for number in range(4):
        ticket = world.poll(f"w{number}")
        found[(world.leases(ticket) or [])[0][0]] = checkpoint_of(world, ticket)
    assert found == {**dict.fromkeys(others), lease.task: b"[1]"}


def test_a_retry_by_hand_goes_on_from_it() -> None:
    world = World()
    lease = world.lease(world.enqueue(retry=constant(1, backoff_s=0)), worker="a")
    world.poll("a", ended(lease, failed()), notes=[note(lease)])
    assert world.ask_retry(lease.task) is None
    assert checkpoint_of(world, world.poll("b")) == b"[1]"


def test_tasks_that_left_none_are_granted_as_ever() -> None:
    world = World()
    lease = a_running(world)
    ticket = world.poll("a", ended(lease, failed()), notes=[note(lease, checkpoint=None, progress=b"{}")])
    assert checkpoint_of(world, ticket) is None
    assert world.decisions[-1].checkpoints == []


@pytest.mark.parametrize("stale", ["lease", "worker", "ended"])
def test_a_note_counts_for_its_own_attempt_alone(stale: str) -> None:
    world = World()
    lease = a_running(world)
    if stale == "ended":
        world.report(lease, succeeded())
    wrong = lease._replace(number=2) if stale == "lease" else lease
    world.poll("b" if stale == "worker" else "a", notes=[note(wrong)])
    assert (world.decisions[-1].writes.notes, world.core.counters.stale_notes) == ([], 1)


def test_of_two_in_one_step_the_later_one_is_written() -> None:
    world = World()
    lease = a_running(world)
    world.poll("a", notes=[note(lease, 2, b"2"), note(lease, 1, b"1")])
    assert world.decisions[-1].writes.notes == [note(lease, 2, b"2")]


def test_leases_with_checkpoints_are_granted_by_their_bytes() -> None:
    world = World(CoreSettings(lease_bytes=10, prefetch_s=10.0))
    tasks = world.enqueue_all([world.new(retry=NOW) for _ in range(3)])
    world.register("a", concurrency=3)
    leases = world.take("a")
    notes = [note(lease, checkpoint=b"[1234]") for lease in leases]
    ticket = world.poll("a", *(ended(lease, failed()) for lease in leases), notes=notes)
    assert len(world.leases(ticket) or []) == 1
    world.poll("a")
    world.turn()
    assert {task for decision in world.decisions for task in decision.checkpoints} <= set(tasks)
