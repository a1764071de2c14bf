from asyncproc.core.dangers import REMEMBERED_S
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from simulation.world import ONCE, Granted, World, failed, killed, succeeded

TINY_S = 0.0001


def tiny_tasks(world: World, number: int) -> None:
    """The core learns that `Work` is short, and then gets so many of it."""
    lease = world.lease(world.enqueue(), worker="teacher")
    world.report(lease, succeeded(seconds=TINY_S))
    world.lose("teacher")
    world.enqueue_all([world.new() for _ in range(number)])


def test_a_waiting_worker_gets_a_task_in_the_cycle_that_inserts_it() -> None:
    world = World()
    ticket = world.poll("a")
    world.enqueue()
    assert len(world.granted(ticket, "a")) == 1
    assert world.decisions[-1].writes.claims == []


def test_long_tasks_travel_one_a_slot() -> None:
    world = World()
    world.enqueue_all([world.new() for _ in range(10)])
    world.register("a", concurrency=3)
    assert len(world.take("a")) == 3
    assert world.take("a") == []


def test_tiny_tasks_travel_by_the_hundred() -> None:
    world = World(CoreSettings(prefetch_s=0.01995))
    tiny_tasks(world, 1000)
    assert len(world.take("a")) == 200


def test_no_worker_holds_more_than_it_may() -> None:
    world = World(CoreSettings(max_held=50))
    tiny_tasks(world, 1000)
    assert len(world.take("a")) == 50


def test_a_few_tasks_are_spread_over_the_workers() -> None:
    world = World()
    tiny_tasks(world, 0)
    tickets = {name: world.poll(name) for name in "abc"}
    world.enqueue_all([world.new() for _ in range(7)])
    assert [len(world.granted(ticket, name)) for name, ticket in tickets.items()] == [3, 2, 2]


def test_a_worker_that_is_full_takes_no_part_in_sharing() -> None:
    world = World()
    world.lease(world.enqueue(type_name="Slow"), worker="busy")
    tiny_tasks(world, 0)
    free, parked = world.poll("free"), world.poll("busy")
    world.enqueue_all([world.new() for _ in range(10)])
    assert len(world.granted(free, "free")) == 10
    assert world.parked(parked)


def test_who_waits_longest_is_served_first() -> None:
    world = World()
    first, second = world.poll("b"), world.poll("a")
    world.enqueue()
    assert not world.parked(first)
    assert world.parked(second)


def test_a_pool_serves_its_own_queues_only() -> None:
    world = World(CoreSettings(pool_of={"video": "gpu"}))
    world.register("a")
    world.register("g", pool="gpu")
    on_gpu, elsewhere = world.enqueue(queue="video"), world.enqueue(queue="mail")
    assert [lease.task for lease in world.take("a")] == [elsewhere]
    assert [lease.task for lease in world.take("g")] == [on_gpu]


def lost_together(world: World, number: int) -> list[Granted]:
    """So many tasks are aboard of one worker when it dies."""
    world.register("dead", concurrency=number)
    world.enqueue_all([world.new() for _ in range(number)])
    leases = world.take("dead")
    assert len(leases) == number
    world.lose("dead")
    return leases


def lost_again(world: World, number: int) -> list[Granted]:
    """So many tasks are aboard of one worker when it dies, and then of another one, each in a process of its own."""
    lost_together(world, number)
    world.register("doomed", concurrency=number)
    leases = world.take("doomed")
    assert len(leases) == number
    world.lose("doomed")
    return leases


def confined(world: World, ticket: int) -> list[bool]:
    return [lease[8] for lease in world.leases(ticket) or []]


def test_suspects_go_first_among_others_each_in_a_process_of_its_own() -> None:
    world = World()
    lost = lost_together(world, 2)
    others = world.enqueue_all([world.new(priority=9) for _ in range(5)])
    world.register("a", concurrency=4)

    suspects, rest = world.poll("a"), world.poll("a")

    assert [lease.task for lease in world.granted(suspects, "a")] == [lease.task for lease in lost]
    assert confined(world, suspects) == [True, True]
    assert [lease.task for lease in world.granted(rest, "a")] == others[:2]
    assert confined(world, rest) == [False, False]


def test_all_tasks_of_a_type_that_cost_its_process_are_confined_for_a_while() -> None:
    world = World()
    world.register("a", concurrency=2)
    world.enqueue(retry=ONCE)
    (lease,) = world.take("a")
    world.report(lease, killed())
    world.enqueue_all([world.new(), world.new(type_name="Other")])
    ticket = world.poll("a")
    assert confined(world, ticket) == [True, False]
    for lease in world.granted(ticket, "a"):
        world.report(lease, succeeded())

    world.wait(REMEMBERED_S)
    world.register("b", concurrency=2)
    world.enqueue()
    assert confined(world, world.poll("b")) == [False]


def test_a_type_of_which_one_was_proven_to_kill_its_worker_is_confined() -> None:
    world = World()
    (lost,) = lost_together(world, 1)
    lease = world.lease(lost.task, "a")
    world.lose("a")
    assert world.state(lease.task) is State.RETRYING
    world.enqueue()
    assert confined(world, world.poll("b")) == [True]


def test_a_suspect_whose_own_process_dies_is_charged_and_nobody_else() -> None:
    world = World()
    lost = lost_together(world, 2)
    world.register("a", concurrency=2)
    first, _ = world.take("a")
    world.report(first, killed())
    assert [world.row(lease.task).attempt for lease in lost] == [1, 1]
    assert [world.state(lease.task) for lease in lost] == [State.RETRYING, State.RUNNING]


def test_what_was_aboard_again_runs_one_at_a_time_and_with_nobody_beside() -> None:
    world = World()
    lost_again(world, 3)
    world.enqueue_all([world.new() for _ in range(5)])
    world.register("a", concurrency=4)
    (suspect,) = world.take("a")
    parked = world.poll("a")
    assert world.parked(parked)
    (next_suspect,) = world.report(suspect, succeeded())
    assert world.row(next_suspect.task).losses == 2


def test_while_a_loner_runs_the_other_workers_go_on() -> None:
    world = World()
    lost_again(world, 2)
    world.enqueue_all([world.new() for _ in range(5)])
    world.register("a", concurrency=4)
    world.register("b", concurrency=4)
    assert len(world.take("a")) == 1
    assert len(world.take("b")) == 4


def test_when_the_loners_are_through_all_is_as_before() -> None:
    world = World()
    lost_again(world, 2)
    world.register("a", concurrency=4)
    (first,) = world.take("a")
    (second,) = world.report(first, succeeded())
    world.enqueue_all([world.new() for _ in range(4)])
    assert len(world.report(second, succeeded())) == 4


def test_a_suspect_that_is_through_is_a_task_like_others() -> None:
    world = World()
    lost_together(world, 1)
    (suspect,) = world.take("a")
    world.report(suspect, failed())
    world.enqueue_all([world.new() for _ in range(3)])
    world.wait(6)
    world.register("b", concurrency=4)
    assert len(world.take("b")) == 4


def test_a_busy_worker_is_emptied_for_a_loner() -> None:
    world = World()
    world.register("a", concurrency=2)
    world.enqueue_all([world.new() for _ in range(2)])
    one, other = world.take("a")
    lost = lost_again(world, 2)
    world.enqueue_all([world.new() for _ in range(4)])
    assert world.report(one, succeeded()) == []
    assert [lease.task for lease in world.report(other, succeeded())] == [lost[0].task]


def test_a_loner_does_not_wait_for_the_worker_that_is_emptied_while_another_is_idle() -> None:
    world = World()
    world.lease(world.enqueue(), worker="a")
    lost = lost_again(world, 2)
    world.poll("a")
    assert world.lease(lost[0].task, worker="b")
    world.enqueue()
    assert world.running() == 2


def test_a_loner_does_not_wait_for_a_worker_that_nobody_has_heard_from() -> None:
    world = World()
    world.lease(world.enqueue(), worker="gone")
    world.register("b", concurrency=2)
    world.enqueue_all([world.new() for _ in range(2)])
    one, other = world.take("b")
    lost = lost_again(world, 2)
    world.enqueue_all([world.new() for _ in range(4)])
    world.restart()
    world.register("b", one, other, concurrency=2)
    assert world.report(one, succeeded()) == []
    assert [lease.task for lease in world.report(other, succeeded())] == [lost[0].task]
