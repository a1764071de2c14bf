from asyncproc.core.events import Draining, Enqueued, Polled, Registered, WorkerLost
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from simulation.world import World, succeeded


def test_a_poll_is_parked_until_there_is_work() -> None:
    world = World()
    ticket = world.poll("a")
    assert world.parked(ticket)
    task = world.enqueue()
    assert [lease.task for lease in world.granted(ticket, "a")] == [task]


def test_a_parked_poll_is_answered_with_nothing_after_its_time() -> None:
    world = World(CoreSettings(poll_s=10))
    ticket = world.poll("a")
    world.wait(9.9)
    assert world.parked(ticket)
    world.wait(0.2)
    assert world.leases(ticket) == []


def test_each_poll_has_its_own_time() -> None:
    world = World(CoreSettings(poll_s=10))
    first = world.poll("a")
    world.wait(6)
    second = world.poll("a")
    world.wait(5)
    assert (world.parked(first), world.parked(second)) == (False, True)
    world.wait(6)
    assert not world.parked(second)


def test_a_poll_that_was_answered_gets_nothing_any_more() -> None:
    world = World(CoreSettings(poll_s=10))
    world.poll("a")
    world.wait(11)
    task = world.enqueue()
    assert world.state(task) is State.QUEUED


def test_an_idle_system_sleeps_for_the_time_of_a_poll() -> None:
    world = World(CoreSettings(poll_s=10))
    world.poll("a")
    assert world.wake_at == world.now + 10


def test_a_core_that_knows_nobody_sleeps() -> None:
    assert World().wake_at is None


def test_two_exchanges_in_flight_are_both_answered() -> None:
    world = World()
    leases = [world.lease(world.enqueue(), worker="a")]
    parked = world.poll("a")
    task = world.enqueue()
    (again,) = world.report(leases[0], succeeded())
    assert again.task == task
    assert world.parked(parked)


def test_a_stranger_must_register_before_it_polls() -> None:
    world = World()
    for session in (0, 1):
        ticket = world.ticket()
        world.turn(Polled(ticket, "stranger", session, []))
        assert world.leases(ticket) is None
    assert world.core.counters.stale_polls == 2


def test_a_poll_overtaken_by_a_registration_receives_nothing() -> None:
    world = World()
    old = world.poll("a")
    overtaken_session = world.sessions["a"]
    world.register("a")
    assert world.leases(old) is None
    late = world.ticket()
    world.turn(Polled(late, "a", overtaken_session, []))
    assert world.leases(late) is None
    task = world.enqueue()
    assert world.state(task) is State.QUEUED


def test_of_a_stale_poll_no_outcome_is_taken() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    session = world.sessions["a"]
    world.register("a", lease)
    world.turn(Polled(world.ticket(), "a", session, [(lease.task, lease.number, *succeeded()[2:])]))
    assert world.state(lease.task) is State.RUNNING


def test_a_poll_before_registration_in_the_same_cycle_is_not_lost() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    poll, registration = world.ticket(), world.ticket()
    world.turn(
        Polled(poll, "a", world.sessions["a"], [(lease.task, lease.number, *succeeded()[2:])]),
        Registered(registration, "a", "default", 1, [(lease.task, lease.number)]),
    )
    assert world.leases(poll) is None
    assert world.state(lease.task) is State.SUCCEEDED


def test_a_worker_that_comes_back_under_its_name_in_the_cycle_of_its_loss_is_served() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    outcome = (lease.task, lease.number, *succeeded()[2:])
    session = world.sessions["a"]
    poll, reported = world.ticket(), world.ticket()
    world.turn(
        Polled(reported, "a", session, [outcome]),
        WorkerLost("a", "no answer"),
        Registered(world.ticket(), "a", "default", 1, []),
        Polled(poll, "a", session + 1, []),
    )
    assert world.parked(poll)
    task = world.enqueue()
    assert [lease.task for lease in world.granted(poll, "a")] == [task]


def test_draining_gives_out_nothing_more() -> None:
    world = World()
    parked = world.poll("a")
    decision = world.turn(Enqueued(world.ticket(), [world.new()]), Draining())
    assert world.parked(parked)
    assert [task.state for task in decision.writes.inserts] == [State.QUEUED]


def test_draining_still_records_what_ends() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.enqueue()
    world.drain()
    assert world.report(lease, succeeded()) == []
    assert world.state(lease.task) is State.SUCCEEDED


def test_draining_takes_back_what_a_worker_did_not_begin() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.drain()
    world.register("a")
    assert world.parked(world.poll("a"))
    assert world.state(lease.task) is State.QUEUED
    assert (world.row(lease.task).losses, world.row(lease.task).attempt) == (0, 0)


def test_an_overtaken_registration_takes_nothing_from_who_runs_it_in_a_drain_either() -> None:
    world = World()
    world.register("a")
    lease = world.lease(world.enqueue(), worker="a")
    world.drain()
    world.turn(Registered(world.ticket(), "a", "default", 1, []))
    assert world.state(lease.task) is State.RUNNING
    assert world.register("a", lease) == []
    world.report(lease, succeeded())
    assert world.state(lease.task) is State.SUCCEEDED
