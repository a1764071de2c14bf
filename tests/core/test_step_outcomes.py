import pytest

from asyncproc.core.events import Outcome
from asyncproc.core.retry import RetryPolicy, constant
from asyncproc.core.states import State
from simulation.world import ONCE, World, failed, succeeded


def test_a_success_is_final() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.report(lease, succeeded(b'{"n":1}'))
    assert world.state(lease.task) is State.SUCCEEDED
    assert world.table.bodies[lease.task] == b'{"n":1}'
    assert (world.core.counters.succeeded, world.running(), len(world.core.tasks)) == (1, 0, 0)


def test_a_failure_waits_for_its_next_attempt() -> None:
    world = World()
    task = world.enqueue(retry=constant(3, backoff_s=7))
    world.report(world.lease(task, worker="a"), failed())
    assert world.state(task) is State.RETRYING
    assert world.row(task).ready_at == world.now + 7
    world.wait(6.9)
    assert world.take("b") == []
    world.wait(0.1)
    assert world.row(task).attempt == 2


def test_a_task_that_waits_again_is_ranked_anew() -> None:
    world = World()
    task = world.enqueue(priority=1, retry=constant(3, backoff_s=7))
    world.report(world.lease(task, worker="a"), failed())
    world.wait(8)
    assert world.row(task).rank == world.row(task).ready_at - 60


def test_jitter_is_drawn_by_the_worker() -> None:
    world = World()
    task = world.enqueue(retry=RetryPolicy(3, 10.0, 1.0, 100.0, 0.5))
    world.report(world.lease(task, worker="a"), failed(spread=-1.0))
    assert world.row(task).ready_at == world.now + 5


def test_the_last_failure_is_final() -> None:
    world = World()
    task = world.enqueue(retry=constant(2, backoff_s=0))
    (second,) = world.report(world.lease(task, worker="a"), failed())
    assert (second.attempt, second.number) == (2, 2)
    world.report(second, failed())
    assert world.state(task) is State.FAILED
    assert (world.core.counters.retried, world.core.counters.failed) == (1, 1)


def test_a_report_is_answered_in_the_cycle_that_records_it_though_there_is_nothing_to_do() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    assert world.report(lease, succeeded()) == []


def test_a_doubled_report_changes_nothing_and_is_counted() -> None:
    world = World()
    lease = world.lease(world.enqueue(retry=constant(2, backoff_s=60)), worker="a")
    world.report(lease, failed())
    world.report(lease, failed())
    assert world.state(lease.task) is State.RETRYING
    assert world.row(lease.task).attempt == 1
    assert world.core.counters.stale_outcomes == 1


def test_a_doubled_report_in_one_call_counts_once() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    outcome = (lease.task, lease.number, *succeeded()[2:])
    world.poll("a", outcome, outcome)
    assert (world.core.counters.succeeded, world.core.counters.stale_outcomes) == (1, 1)


def test_a_report_of_an_earlier_lease_does_not_end_the_attempt_that_runs() -> None:
    world = World()
    old = world.lease(world.enqueue(retry=constant(3, backoff_s=0)), worker="a")
    (current,) = world.report(old, failed())
    world.report(old, succeeded())
    assert world.state(old.task) is State.RUNNING
    assert world.core.counters.stale_outcomes == 1
    world.report(current, succeeded())
    assert world.state(old.task) is State.SUCCEEDED


def test_a_late_report_of_a_lost_lease_changes_nothing() -> None:
    world = World()
    lost = world.lease(world.enqueue(), worker="a")
    world.lose("a")
    current = world.lease(lost.task, worker="b")
    world.register("a")
    world.report(lost, succeeded())
    assert world.row(lost.task).lease == current.number
    assert world.state(lost.task) is State.RUNNING
    assert world.core.counters.stale_outcomes == 1


def test_a_late_report_between_loss_and_next_lease_changes_nothing() -> None:
    world = World()
    lost = world.lease(world.enqueue(), worker="a")
    world.lose("a")
    world.register("a", concurrency=1)
    world.drain()
    world.report(lost, succeeded())
    assert world.state(lost.task) is State.QUEUED
    assert world.core.counters.stale_outcomes == 1


def test_nobody_reports_for_another_worker() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.register("b")
    world.report(lease._replace(worker="b"), succeeded())
    assert world.state(lease.task) is State.RUNNING
    world.report(lease, succeeded())
    assert world.state(lease.task) is State.SUCCEEDED


@pytest.mark.parametrize("ending", [succeeded(), failed()])
def test_reports_of_tasks_nobody_knows_are_counted(ending: Outcome) -> None:
    world = World()
    world.poll("a", (b"\xff" * 16, 1, *ending[2:]))
    assert world.core.counters.stale_outcomes == 1


def test_a_failed_task_retried_by_hand_starts_over_with_a_lease_that_grows() -> None:
    world = World()
    task = world.enqueue(retry=ONCE)
    first = world.lease(task, worker="a")
    world.report(first, failed())
    world.wait(9)
    assert world.ask_retry(task) is None
    assert world.row(task).ready_at == world.now
    again = world.lease(task, worker="a")
    assert (again.number, again.attempt) == (first.number + 1, 1)


def test_a_retry_by_hand_may_start_in_its_own_commit() -> None:
    world = World()
    task = world.enqueue(retry=ONCE)
    world.report(world.lease(task, worker="a"), failed())
    ticket = world.poll("a")
    world.ask_retry(task)
    assert [lease.task for lease in world.granted(ticket, "a")] == [task]
    assert world.state(task) is State.RUNNING


def test_what_has_not_failed_is_not_retried_by_hand() -> None:
    world = World()
    task = world.enqueue()
    assert world.ask_retry(task) is State.QUEUED
    lease = world.lease(task, worker="a")
    assert world.ask_retry(task) is State.RUNNING
    world.report(lease, succeeded())
    assert world.ask_retry(task) is State.SUCCEEDED
    assert world.table.revivals[task] == 0
