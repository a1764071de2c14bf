import pytest

from asyncproc.core.decision import Writes
from asyncproc.core.events import Enqueued, Polled, Refused
from asyncproc.core.rank import STRICT_AGING_S
from asyncproc.core.retry import constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import QueueRules
from asyncproc.core.task import TaskId
from simulation.world import World, failed, succeeded


def order_of_execution(window: int, window_bytes: int = 1 << 40, page_bytes: int | None = None) -> list[TaskId]:
    world = World(CoreSettings(window=window, window_bytes=window_bytes), page_bytes=page_bytes)
    for number in range(300):
        world.now += 7.3 * (number % 11)
        size = b"x" * (number * 37 % 100)
        world.enqueue_all([world.new(priority=number * 7 % 5, payload=size), world.new(delay_s=number * 13 % 400)])
    world.wait(500)
    order: list[TaskId] = []
    leases = world.take("a")
    while leases:
        order.append(leases[0].task)
        leases = world.report(leases[0], succeeded())
    assert len(order) == 600
    return order


@pytest.mark.parametrize(
    ("window", "window_bytes", "page_bytes"),
    [(10, 1 << 40, None), (1, 1 << 40, None), (10, 1 << 40, 150), (500, 400, 150)],
)
def test_the_bounds_of_the_window_do_not_change_the_order(
    window: int, window_bytes: int, page_bytes: int | None
) -> None:
    assert order_of_execution(window, window_bytes, page_bytes) == order_of_execution(1_000_000)


def test_memory_is_bounded_whatever_waits() -> None:
    world = World(CoreSettings(window=100))
    for _ in range(20):
        world.enqueue_all([world.new() for _ in range(100)] + [world.new(delay_s=60) for _ in range(100)])
    assert len(world.core.tasks) <= 200
    assert len(world.table.live) == 4000


def test_memory_is_bounded_in_bytes() -> None:
    world = World(CoreSettings(window_bytes=10_000))
    world.enqueue_all([world.new(payload=b"x" * 1000) for _ in range(100)])
    assert sum(len(task.payload) for task in world.core.tasks.values()) <= 10_000


@pytest.mark.parametrize("sizes", [[10, 10, 40, 40], [29, 29, 29], [60, 60], [1, 70, 1]])
def test_with_nothing_to_do_no_page_is_wanted(sizes: list[int]) -> None:
    world = World(CoreSettings(window_bytes=60))
    world.enqueue_all([world.new(payload=b"x" * size) for size in sizes])
    assert world.turn().pages == []


def test_what_comes_with_a_page_and_what_came_since_are_both_there() -> None:
    world = World(CoreSettings(window=2))
    world.enqueue_all([world.new() for _ in range(5)])
    leases = world.take("a")
    world.cycle([])
    urgent = world.new(priority=1)
    world.cycle([Enqueued(world.ticket(), [urgent])])
    order = []
    while leases:
        order.append(leases[0].task)
        leases = world.report(leases[0], succeeded())
    assert len(order) == 6


def test_what_came_while_a_page_was_read_is_not_lost_behind_it() -> None:
    world = World(CoreSettings(window=4))
    world.enqueue_all([world.new(priority=priority) for priority in (20, 18, 16, 14, 12, 10, 8)])
    world.register("a")
    ticket = world.ticket()
    decision = world.cycle([Polled(ticket, "a", world.sessions["a"], [])])
    assert len(decision.pages) == 1
    world.cycle([Enqueued(world.ticket(), [world.new(priority=13)])])
    leases, order = world.granted(ticket, "a"), []
    while leases:
        order.append(world.row(leases[0].task).options.priority)
        leases = world.report(leases[0], succeeded())
    assert order == [20, 18, 16, 14, 13, 12, 10, 8]


def test_a_wait_that_ends_behind_the_window_is_left_to_the_disk() -> None:
    world = World(CoreSettings(window=2))
    lease = world.lease(world.enqueue(retry=constant(2, backoff_s=20)), worker="a")
    world.enqueue_all([world.new(delay_s=5 + number) for number in range(5)])
    world.report(lease, failed())
    assert lease.task not in world.core.tasks
    world.wait(20)
    assert world.state(lease.task) is State.QUEUED


def test_a_queue_that_ran_dry_for_good_owns_nothing_of_the_time_it_was_idle() -> None:
    world = World(CoreSettings(window=1))
    world.enqueue_all([world.new(queue="a"), world.new(queue="a")])
    (lease,) = world.take("w")
    (lease,) = world.report(lease, succeeded())
    world.report(lease, succeeded())
    world.enqueue_all([world.new(queue="b") for _ in range(100)])
    (lease,) = world.take("w")
    for _ in range(40):
        (lease,) = world.report(lease, succeeded())
    world.enqueue_all([world.new(queue="a") for _ in range(50)])
    served = []
    for _ in range(20):
        (lease,) = world.report(lease, succeeded())
        served.append(world.row(lease.task).queue)
    assert 9 <= served.count("a") <= 11


def test_a_suspect_that_the_table_refused_is_suspected_no_more() -> None:
    world = World()
    task = world.enqueue()
    world.lease(task, worker="a")
    world.lose("a")
    del world.table.live[task]
    world.tampered = True
    world.turn(Refused([task]))
    world.tampered = False
    parked = world.poll("b")
    assert world.parked(parked)
    other = world.enqueue()
    assert [lease.task for lease in world.granted(parked, "b")] == [other]


def test_a_row_that_somebody_deleted_is_forgotten_when_its_claim_is_refused() -> None:
    world = World()
    gone, there = world.enqueue_all([world.new(), world.new()])
    world.tampered = True
    del world.table.live[gone]
    assert world.take("a") == []
    assert (world.running(), world.core.counters.refused_writes) == (0, 1)
    world.tampered = False
    assert world.lease(there, worker="a")


def test_a_row_that_is_not_what_memory_took_it_for_is_read_again() -> None:
    world = World()
    task, other = world.enqueue_all([world.new(), world.new()])
    world.tampered = True
    world.table.live[task].lease = 7
    assert world.take("a") == []
    world.tampered = False
    world.turn()
    lease = world.lease(task, worker="a")
    assert lease.number == 8
    assert [again.task for again in world.report(lease, succeeded())] == [other]


def test_a_suspect_that_somebody_deleted_is_forgotten() -> None:
    world = World()
    task = world.enqueue()
    world.lease(task, worker="a")
    world.lose("a")
    world.tampered = True
    del world.table.live[task]
    assert world.take("b") == []
    world.tampered = False
    assert world.lease(world.enqueue(), worker="b")


def test_a_low_priority_runs_under_a_stream_of_high_ones_because_it_ages() -> None:
    assert 55 <= served_under_a_stream(aging_s=60.0) <= 62


def test_strict_priority_serves_it_when_the_stream_ends() -> None:
    assert served_under_a_stream(aging_s=STRICT_AGING_S) == 200


def served_under_a_stream(aging_s: float) -> int:
    """After how many seconds of one urgent task a second, for 200 seconds, a task of the level below is served."""
    world = World(CoreSettings(default_rules=QueueRules(aging_s=aging_s)))
    modest = world.enqueue(priority=0)
    world.enqueue(priority=1)
    (lease,) = world.take("a")
    for second in range(1, 1000):
        world.now += 1
        if second < 200:
            world.enqueue(priority=1)
        (lease,) = world.report(lease, succeeded())
        if lease.task == modest:
            return second
    raise AssertionError("never served")


def test_queues_of_weight_three_to_one_share_three_to_one() -> None:
    world = World(CoreSettings(queues={"a": QueueRules(weight=3)}, window=10))
    for _ in range(200):
        world.enqueue_all([world.new(queue="a"), world.new(queue="b")])
    served = []
    (lease,) = world.take("w")
    for _ in range(200):
        served.append(world.row(lease.task).queue)
        (lease,) = world.report(lease, succeeded())
    assert served.count("a") == 150
    assert served[:100].count("a") == 75


def test_a_flood_does_not_shut_out_another_queue() -> None:
    world = World()
    world.enqueue_all([world.new(queue="flood") for _ in range(1000)])
    (lease,) = world.take("a")
    task = world.enqueue(queue="mail")
    (after,) = world.report(lease, succeeded())
    assert after.task == task


def test_writes_that_change_nothing_are_none() -> None:
    assert not Writes()
    assert Writes(came_due=[(b"", 0.0)])


def test_a_retry_that_is_due_at_once_is_retried_and_queued_in_one_commit() -> None:
    world = World()
    lease = world.lease(world.enqueue(retry=constant(2, backoff_s=0)), worker="a")
    urgent = world.enqueue(priority=1)
    (after,) = world.report(lease, failed())
    assert after.task == urgent
    assert world.state(lease.task) is State.QUEUED
    assert world.row(lease.task).rank == world.now
