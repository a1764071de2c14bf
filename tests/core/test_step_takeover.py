from asyncproc.core.events import Polled, Registered
from asyncproc.core.retry import constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from simulation.world import World, failed, succeeded


def test_a_reign_begins_with_what_runs_and_the_best_of_what_waits() -> None:
    world = World(CoreSettings(window=4))
    running = world.lease(world.enqueue(), worker="a")
    waiting = world.enqueue_all([world.new() for _ in range(10)])
    world.enqueue(delay_s=5)
    world.restart()
    assert running.task in world.core.tasks
    assert [task in world.core.tasks for task in waiting] == [True] * 3 + [False] * 7


def test_what_a_worker_still_holds_is_adopted() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.restart()
    assert world.register("a", lease) == []
    world.report(lease, succeeded())
    assert world.state(lease.task) is State.SUCCEEDED
    assert world.row(lease.task).lease == lease.number


def test_what_never_arrived_is_given_back_uncharged_when_the_session_is_used() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.restart()
    world.register("a")
    assert world.state(lease.task) is State.RUNNING
    (again,) = world.take("a")
    assert (again.task, again.attempt, again.number) == (lease.task, 1, 2)
    assert world.row(lease.task).losses == 0


def test_an_overtaken_registration_takes_nothing_from_who_runs_it() -> None:
    world = World()
    world.register("a")
    lease = world.lease(world.enqueue(), worker="a")
    world.restart()
    world.turn(Registered(world.ticket(), "a", "default", 1, []))
    assert world.register("a", lease) == []
    world.poll("a")
    assert world.row(lease.task).lease == lease.number
    assert world.state(lease.task) is State.RUNNING


def test_what_is_recorded_already_is_dropped() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.report(lease, succeeded())
    world.restart()
    assert world.register("a", lease) == [lease.task]


def test_an_old_lease_aboard_does_not_stand_for_the_new_one_that_never_arrived() -> None:
    world = World()
    old = world.lease(world.enqueue(retry=constant(3, backoff_s=0)), worker="a")
    (lost_on_its_way,) = world.report(old, failed())
    assert world.register("a", old) == [old.task]
    (again,) = world.take("a")
    assert (again.task, again.number) == (old.task, lost_on_its_way.number + 1)


def test_an_old_lease_beside_the_current_one_does_not_drop_it() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    assert world.register("a", lease._replace(number=0), lease) == []
    world.poll("a")
    assert world.row(lease.task).lease == lease.number


def test_what_a_lost_worker_holds_is_dropped_when_it_comes_back() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.lose("a")
    assert world.register("a", lease) == [lease.task]
    assert world.state(lease.task) is State.QUEUED


def test_a_worker_that_never_comes_back_is_lost_in_the_end() -> None:
    world = World(CoreSettings(poll_s=10, silence_s=30))
    lease = world.lease(world.enqueue(), worker="a")
    world.restart()
    world.wait(39)
    assert world.state(lease.task) is State.RUNNING
    world.wait(2)
    assert world.state(lease.task) is State.QUEUED


def test_a_loner_that_runs_at_the_takeover_stays_alone() -> None:
    world = World()
    tasks = world.enqueue_all([world.new(), world.new()])
    for worker in ("a", "b"):
        world.register(worker, concurrency=2)
        assert len(world.take(worker)) == 2
        world.lose(worker)
    loner = world.lease(tasks[0], worker="c")
    world.restart()
    world.register("c", loner, concurrency=4)
    world.enqueue()
    assert world.parked(world.poll("c"))


def test_a_worker_serves_the_pool_it_says_it_is_of() -> None:
    world = World()
    lease = world.lease(world.enqueue(queue="video"), worker="a")
    world.settings = CoreSettings(pool_of={"video": "gpu"})
    world.restart()
    world.register("a", lease, concurrency=2)
    task = world.enqueue(queue="mail")
    world.enqueue(queue="video")
    assert [lease.task for lease in world.take("a")] == [task]


def test_sessions_of_two_reigns_are_never_equal() -> None:
    world = World()
    world.register("a")
    session = world.sessions["a"]
    world.restart()
    world.register("a")
    assert world.sessions["a"] != session
    late = world.ticket()
    world.turn(Polled(late, "a", session, []))
    assert world.leases(late) is None


def test_a_worker_known_by_its_rows_alone_must_register() -> None:
    world = World()
    lease = world.lease(world.enqueue(), worker="a")
    world.restart()
    ticket = world.ticket()
    world.turn(Polled(ticket, "a", 0, [(lease.task, lease.number, *succeeded()[2:])]))
    assert world.leases(ticket) is None
    assert world.state(lease.task) is State.RUNNING


def test_a_recovered_task_keeps_its_rank_and_goes_before_those_that_came_later() -> None:
    world = World()
    first = world.enqueue()
    world.lease(first, worker="a")
    world.wait(1)
    world.enqueue()
    world.restart()
    world.lose("a", charged=False)
    assert world.lease(first, worker="b")
