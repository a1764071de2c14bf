import pytest

from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import QueueRules
from simulation.world import Granted, World, failed, succeeded
from tests.core.test_dispatch import tiny_tasks

SHORT_S = 0.0017505
"""Twenty of them are what may be held ahead."""


def short_tasks(world: World, worker: str, number: int, queue: str = "default", concurrency: int = 1) -> list[Granted]:
    """The worker is granted so many tasks of a type that is known to be short."""
    teach(world, queue)
    world.register(worker, concurrency=concurrency)
    world.enqueue_all([world.new(queue) for _ in range(number)])
    leases = world.take(worker)
    assert len(leases) == number
    return leases


def teach(world: World, queue: str = "default", type_name: str = "Work") -> None:
    lease = world.lease(world.enqueue(queue, type_name=type_name), worker="teacher")
    world.report(lease, succeeded(seconds=SHORT_S))
    world.lose("teacher")


def ids(leases: list[Granted]) -> list[bytes]:
    return [lease.task for lease in leases]


# ---- a better task finds no room


def test_a_better_task_takes_the_place_of_those_that_have_not_begun() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    parked = world.poll("a")
    urgent = world.enqueue(priority=9)
    assert world.recalled(parked) == ids(leases)
    assert world.state(urgent) is State.QUEUED
    assert ids(world.give_back(leases[1:]))[:3] == [urgent, *ids(leases[1:3])]


def test_what_is_called_back_counts_as_held_until_it_is_returned() -> None:
    world = World()
    short_tasks(world, "a", 20)
    world.poll("a")
    world.enqueue(priority=9)
    assert world.running() == 20


def test_what_began_meanwhile_is_not_returned_and_ends_as_ever() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    world.poll("a")
    urgent = world.enqueue(priority=9)
    again = world.give_back(leases[5:])
    assert ids(again)[0] == urgent
    world.report(leases[4], succeeded())
    assert world.state(leases[4].task) is State.SUCCEEDED


def test_a_returned_lease_costs_no_attempt_and_no_wait() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    before = [(world.row(lease.task).rank, world.row(lease.task).attempt) for lease in leases[1:]]
    world.poll("a")
    world.enqueue(priority=9)
    again = world.give_back(leases[1:])[1:]
    assert [(world.row(lease.task).rank, world.row(lease.task).attempt) for lease in again] == before[: len(again)]
    assert {(lease.number, lease.attempt) for lease in again} == {(2, 1)}


def test_of_equal_tasks_none_is_called_back() -> None:
    world = World()
    short_tasks(world, "a", 20)
    parked = world.poll("a")
    world.enqueue()
    assert world.parked(parked)


def test_only_what_is_worse_is_called_back() -> None:
    world = World()
    teach(world)
    world.register("a")
    world.enqueue_all([world.new(priority=priority) for priority in [5] * 10 + [1] * 10])
    leases = world.take("a")
    parked = world.poll("a")
    world.enqueue(priority=3)
    assert world.recalled(parked) == ids(leases[10:])


def test_where_little_waits_nothing_is_called_back() -> None:
    world = World(CoreSettings(max_held=5))
    short_tasks(world, "a", 5)
    parked = world.poll("a")
    world.enqueue(priority=9)
    assert world.parked(parked)


def test_where_a_slot_is_free_nothing_is_called_back() -> None:
    world = World()
    short_tasks(world, "a", 20)
    at_a, at_b = world.poll("a"), world.poll("b")
    urgent = world.enqueue(priority=9)
    assert ids(world.granted(at_b, "b")) == [urgent]
    assert world.parked(at_a)


def test_one_better_task_calls_back_from_one_worker() -> None:
    world = World()
    short_tasks(world, "a", 20)
    world.register("b")
    world.enqueue_all([world.new() for _ in range(20)])
    world.take("b")
    tickets = [world.poll("a"), world.poll("b")]
    world.enqueue(priority=9)
    world.turn()
    assert [world.parked(ticket) for ticket in tickets] == [False, True]


def test_each_better_task_calls_back_from_a_worker_of_its_own() -> None:
    world = World()
    short_tasks(world, "a", 20)
    world.register("b")
    world.enqueue_all([world.new() for _ in range(20)])
    world.take("b")
    tickets = [world.poll("a"), world.poll("b")]
    world.enqueue(priority=8)
    world.enqueue(priority=9)
    assert not any(world.parked(ticket) for ticket in tickets)


def test_a_worker_is_not_asked_time_and_again() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    world.poll("a")
    world.enqueue(priority=5)
    world.give_back(leases[1:])
    parked = world.poll("a")
    world.enqueue(priority=6)
    assert world.parked(parked)


def test_between_queues_it_is_the_weights_that_decide() -> None:
    world = World()
    short_tasks(world, "a", 20, queue="bulk")
    parked = world.poll("a")
    world.enqueue(queue="mail", priority=9, type_name="Unknown")
    assert world.parked(parked)


def test_a_queue_does_not_pay_twice_for_what_came_back() -> None:
    world = World(CoreSettings(queues={"bulk": QueueRules(weight=1), "mail": QueueRules(weight=1)}))
    leases = short_tasks(world, "a", 20, queue="bulk")
    world.poll("a")
    world.enqueue(queue="bulk", priority=9, type_name="Unknown")
    world.poll("a", returned=leases[1:])
    world.enqueue_all([world.new("mail", type_name="Long") for _ in range(30)])
    world.enqueue_all([world.new("bulk", type_name="Long") for _ in range(30)])
    queues = []
    ticket = world.poll("a", (leases[0].task, leases[0].number, *succeeded(seconds=9.0)[2:]))
    for _ in range(20):
        (lease,) = world.granted(ticket, "a")
        queues.append(world.row(lease.task).queue)
        ticket = world.poll("a", (lease.task, lease.number, *succeeded(seconds=9.0)[2:]))
    assert queues.count("bulk") >= 19


# ---- a slot is held up


def test_what_waits_behind_a_task_that_overruns_goes_to_who_is_free() -> None:
    world = World()
    leases = short_tasks(world, "a", 5)
    at_a, at_b = world.poll("a"), world.poll("b")
    world.wait(0.09)
    assert world.parked(at_a)
    world.wait(0.02)
    assert world.recalled(at_a) == ids(leases)
    assert world.give_back(leases[1:]) == []
    assert ids(world.granted(at_b, "b")) == ids(leases[1:])


def test_it_goes_back_though_nobody_is_free_to_keep_its_order_with_all_that_waits() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    late = world.enqueue_all([world.new(type_name="Unknown") for _ in range(3)])
    parked = world.poll("a")
    world.wait(0.2)
    assert world.recalled(parked) == ids(leases)
    world.poll("a", returned=leases[1:])
    assert ids(world.report(leases[0], succeeded(seconds=9.0))) == [leases[1].task]
    assert world.state(late[0]) is State.QUEUED


def test_while_one_of_its_slots_makes_progress_a_worker_keeps_what_it_has() -> None:
    world = World()
    leases = short_tasks(world, "a", 12, concurrency=2)
    parked = world.poll("a")
    for lease in leases[1:9]:
        world.wait(0.09)
        world.report(lease, succeeded(seconds=SHORT_S))
    assert world.parked(parked)


def test_a_worker_that_is_held_up_is_given_nothing_ahead() -> None:
    world = World()
    (held,) = short_tasks(world, "a", 1)
    parked = world.poll("a")
    world.wait(1.0)
    waiting = world.enqueue()
    assert world.parked(parked)
    assert ids(world.report(held, succeeded(seconds=SHORT_S))) == [waiting]


def test_who_has_a_free_slot_comes_before_who_would_take_it_ahead() -> None:
    world = World()
    short_tasks(world, "a", 1)
    at_a, at_b = world.poll("a"), world.poll("b")
    world.enqueue()
    assert (world.parked(at_a), world.parked(at_b)) == (True, False)


def test_the_time_of_a_commit_is_not_the_workers() -> None:
    world = World()
    short_tasks(world, "a", 5)
    world.now += 60.0
    world.core.answered(world.now)
    parked = world.poll("a")
    assert world.parked(parked)


def test_no_more_is_called_back_at_once_than_a_worker_may_hold() -> None:
    world = World(CoreSettings(max_held=10))
    teach(world)
    names = [f"w{number}" for number in range(8)]
    for name in names:
        world.register(name)
    world.enqueue_all([world.new() for _ in range(80)])
    for name in names:
        assert len(world.take(name)) == 10
    for name in names:
        world.poll(name)
    world.now += 1.0
    decision = world.turn()
    asked = [reply for reply in decision.replies if getattr(reply, "recalled", None)]
    assert len(asked) == 2


def test_a_system_that_drains_calls_nothing_back() -> None:
    world = World()
    short_tasks(world, "a", 5)
    parked = world.poll("a")
    world.drain()
    world.wait(5.0)
    assert world.parked(parked)
    assert world.wake_at is not None
    assert world.wake_at >= world.now + 1.0


# ---- what may happen to the answer


def test_a_return_that_comes_twice_counts_once() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    world.poll("a")
    world.enqueue(priority=9)
    again = world.give_back(leases[1:])
    world.poll("a", returned=leases[1:])
    assert world.core.counters.returned == 19
    assert all(world.state(lease.task) is State.RUNNING for lease in again)


def test_a_return_lost_on_the_way_is_found_missing_at_the_registration() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    world.poll("a")
    urgent = world.enqueue(priority=9)
    world.register("a", leases[0])
    assert ids(world.take("a"))[0] == urgent


def test_a_return_after_the_registration_that_told_of_it_changes_nothing() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    world.poll("a")
    world.enqueue(priority=9)
    world.register("a", leases[0])
    again = world.take("a")
    world.poll("a", returned=leases[1:])
    assert world.core.counters.returned == 0
    assert all(world.state(lease.task) is State.RUNNING for lease in again)


def test_a_crash_between_recall_and_return_loses_nothing() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    world.poll("a")
    urgent = world.enqueue(priority=9)
    world.restart()
    world.register("a", leases[0])
    world.poll("a")
    assert ids(world.report(leases[0], succeeded())) == [urgent]
    assert all(world.state(lease.task) is State.QUEUED for lease in leases[1:])
    assert {world.row(lease.task).attempt for lease in leases[1:]} == {0}


def test_a_return_by_a_worker_that_does_not_have_the_lease_is_ignored() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    world.poll("b", returned=leases)
    assert world.running() == 20


def test_a_result_beats_the_return_of_the_same_lease() -> None:
    world = World()
    leases = short_tasks(world, "a", 20)
    outcome = (leases[3].task, leases[3].number, *failed()[2:])
    world.poll("a", outcome, returned=leases[3:])
    assert world.state(leases[3].task) is State.RETRYING


# ---- long tasks are not granted ahead, whatever runs beside them


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_a_long_task_waits_for_a_free_slot_beside_short_ones(concurrency: int) -> None:
    world = World()
    short_tasks(world, "a", concurrency, concurrency=concurrency)
    parked = world.poll("a")
    world.enqueue(type_name="NeverSeen")
    assert world.parked(parked)


def test_beside_a_long_task_the_other_slots_are_filled_ahead() -> None:
    world = World()
    tiny_tasks(world, 0)
    world.register("a", concurrency=2)
    world.enqueue(type_name="Long")
    world.enqueue_all([world.new() for _ in range(500)])
    assert len(world.take("a")) >= 200
