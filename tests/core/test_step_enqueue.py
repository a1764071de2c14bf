import pytest

from asyncproc.core.decision import EnqueueReply
from asyncproc.core.events import Enqueued
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from simulation.world import World, failed, succeeded


def test_what_is_acknowledged_is_in_the_same_commit() -> None:
    world = World()
    decision = world.turn(Enqueued(world.ticket(), [world.new(), world.new()]))
    assert len(decision.writes.inserts) == 2
    assert [type(reply) for reply in decision.replies] == [EnqueueReply]


def test_a_task_with_a_delay_is_scheduled_and_runs_no_sooner() -> None:
    world = World()
    task = world.enqueue(delay_s=5)
    ticket = world.poll("a")
    assert world.state(task) is State.SCHEDULED
    world.wait(4.9)
    assert world.parked(ticket)
    world.wait(0.2)
    assert [lease.task for lease in world.granted(ticket, "a")] == [task]


def test_the_core_asks_to_be_woken_when_the_next_task_comes_due() -> None:
    world = World()
    world.enqueue(delay_s=20)
    world.enqueue(delay_s=10)
    assert world.wake_at == world.now + 10


def test_an_instant_is_the_same_in_memory_and_on_disk() -> None:
    world = World()
    world.now += 1 / 7
    ready, later = world.enqueue(), world.enqueue(delay_s=1 / 3)
    assert world.row(ready).ready_at == round(world.now, 6)
    assert world.row(later).ready_at == round(round(world.now, 6) + 1 / 3, 6)


def test_a_task_that_comes_due_with_nobody_waiting_is_ready_in_the_table() -> None:
    world = World()
    task = world.enqueue(delay_s=10, priority=2)
    world.wait(10)
    assert world.state(task) is State.QUEUED
    assert world.row(task).rank == world.row(task).ready_at - 2 * 60


def test_what_comes_due_and_starts_is_written_once() -> None:
    world = World()
    world.enqueue(delay_s=5)
    world.poll("a")
    world.wait(5)
    writes = [decision.writes for decision in world.decisions]
    assert sum(len(write.came_due) for write in writes) == 0
    assert sum(len(write.claims) for write in writes) == 1


def test_a_delay_too_short_to_tell_is_none() -> None:
    world = World()
    task = world.enqueue(delay_s=1e-9)
    assert world.state(task) is State.QUEUED
    assert world.decisions[-1].writes.came_due == []


def test_a_task_without_a_delay_is_ready_at_whatever_part_of_a_microsecond_it_comes() -> None:
    world = World()
    for part in (0.0, 3e-7, 7e-7):
        world.now = round(world.now) + part
        task = world.enqueue()
        assert world.state(task) is State.QUEUED
        assert world.row(task).ready_at <= world.now


def test_many_tasks_due_at_once_become_ready_over_several_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncproc.core.step.MAX_DUE_A_STEP", 10)
    world = World()
    world.enqueue_all([world.new(delay_s=5) for _ in range(25)])
    made = len(world.decisions)
    world.wait(5)
    due = [len(decision.writes.came_due) for decision in world.decisions[made:]]
    assert [number for number in due if number] == [10, 10, 5]


def test_a_task_asked_for_again_is_no_second_task() -> None:
    world = World()
    new = world.new()
    world.turn(Enqueued(world.ticket(), [new]), Enqueued(world.ticket(), [new]))
    world.turn(Enqueued(world.ticket(), [new]))
    assert world.core.counters.enqueued == 1
    assert sum(len(decision.writes.inserts) for decision in world.decisions) == 1


def test_a_task_asked_for_again_in_one_cycle_is_no_second_task_though_it_stays_on_disk() -> None:
    world = World(CoreSettings(window=2))
    world.enqueue_all([world.new() for _ in range(5)])
    new = world.new()
    world.turn(Enqueued(world.ticket(), [new]), Enqueued(world.ticket(), [new]))
    assert world.core.counters.enqueued == 6


def test_children_of_a_success_are_in_its_commit() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    child = world.new()
    world.report(lease, succeeded(children=[child]))
    (commit,) = [decision.writes for decision in world.decisions if decision.writes.succeeded]
    assert [task.id for task in commit.inserts] == [child[0]]


def test_a_failure_has_no_children() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    child = world.new()
    outcome = failed()
    world.report(lease, (*outcome[:7], [child]))
    assert child[0] not in world.table.live


def test_a_stale_success_has_no_children() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.lose("a")
    child = world.new()
    world.register("a")
    world.report(lease, succeeded(children=[child]))
    assert child[0] not in world.table.live


def test_the_request_for_a_task_goes_with_the_commit_that_makes_it_and_once_more_where_it_was_made() -> None:
    world = World()
    new = world.new()
    for inserts in ([new[0]], []):
        decision = world.turn(Enqueued(world.ticket(), [new], requested=True))
        assert [task.id for task in decision.writes.inserts] == inserts
        assert decision.writes.requests == [(new[0],)]
        assert bool(decision.writes)
