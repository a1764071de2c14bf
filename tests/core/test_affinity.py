"""Tasks with an affinity key: where the last one ran, for a bounded time."""

from asyncproc.core.affinity import LOOK_AHEAD
from asyncproc.core.events import Enqueued, RulesChanged
from asyncproc.core.explain import look_at
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import QueueRules, Rules
from asyncproc.core.task import TaskId
from simulation.world import Granted, World, succeeded

WAIT = CoreSettings(affinity_s=1.0)


def enqueue(world: World, *keys: str, queue: str = "default", type_name: str = "Work") -> list[TaskId]:
    """A task for each key; an empty one has none."""
    tasks = []
    for key in keys:
        task_id, payload, options, delay_s, terms = world.new(queue, type_name=type_name)
        tasks.append((task_id, payload, options._replace(affinity_key=key), delay_s, terms))
    world.turn(Enqueued(world.ticket(), tasks))
    return [task[0] for task in tasks]


def settled(world: World, *names: str) -> None:
    """Each worker has run the key of its own name, and waits for work."""
    for name in names:
        world.register(name)
    for name in names:
        enqueue(world, name)
        world.report(world.take(name)[0], succeeded(seconds=1.0))


def ids(leases: list[Granted]) -> list[TaskId]:
    return [lease.task for lease in leases]


def test_a_key_goes_where_it_ran_though_another_asks_first() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    first, second = world.poll("a"), world.poll("b")

    (task,) = enqueue(world, "b")

    assert world.parked(first)
    assert ids(world.granted(second, "b")) == [task]


def test_each_worker_finds_its_own_among_the_next_ones() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    tasks = enqueue(world, "a", "a", "b", "b", "")

    assert ids(world.take("b")) == [tasks[2]]
    assert ids(world.take("a")) == [tasks[0]]


def test_what_waits_for_a_busy_worker_goes_to_another_when_its_time_is_over() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    enqueue(world, "a")
    world.take("a")
    (task,) = enqueue(world, "a")
    ticket = world.poll("b")

    world.wait(0.9)
    assert world.parked(ticket)
    (reason,) = look_at(world.core, world.core.tasks[task]).reasons
    assert (reason.kind, reason.name, reason.text) == ("affinity", "a", "a ran its affinity key last and has no room")
    world.wait(0.2)

    assert ids(world.granted(ticket, "b")) == [task]
    (again,) = enqueue(world, "a")
    assert ids(world.report(Granted(task, world.row(task).lease, 1, "b"), succeeded(seconds=1.0))) == [again], (
        "it moved"
    )


def test_it_goes_home_when_there_is_room_in_time() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    enqueue(world, "a")
    (lease,) = world.take("a")
    (task,) = enqueue(world, "a")
    other = world.poll("b")

    world.wait(0.5)

    assert ids(world.report(lease, succeeded(seconds=1.0))) == [task]
    assert world.parked(other)


def test_it_keeps_nobody_else_waiting() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    enqueue(world, "a")
    world.take("a")
    waiting, plain = enqueue(world, "a", "")
    (elsewhere,) = enqueue(world, "", queue="mail")

    world.register("c")

    assert sorted(ids(world.take("b")) + ids(world.take("c"))) == [plain, elsewhere]
    assert world.state(waiting) is State.QUEUED


def test_a_plain_task_that_comes_later_is_begun_at_once() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    enqueue(world, "a")
    world.take("a")
    enqueue(world, "a")
    ticket = world.poll("b")
    assert world.parked(ticket)

    (better,) = world.enqueue_all([world.new(priority=5)])

    assert ids(world.granted(ticket, "b")) == [better]


def test_the_key_of_a_worker_that_is_gone_is_free() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    world.lose("a")

    (task,) = enqueue(world, "a")

    assert ids(world.take("b")) == [task]


def test_who_waits_behind_many_others_waits_no_longer_for_that() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    enqueue(world, "a")
    world.take("a")
    tasks = enqueue(world, *["a"] * LOOK_AHEAD)
    ticket = world.poll("b")
    world.wait(1.1)

    (lease,) = world.granted(ticket, "b")
    assert lease.task == tasks[0]
    assert ids(world.report(lease, succeeded(seconds=1.0))) == [tasks[1]], "its time is over too"


def test_limits_and_pauses_hold_for_what_waits_for_its_worker() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    world.turn(RulesChanged(world.ticket(), Rules(queues={"default": QueueRules(max_running=1)})))
    enqueue(world, "a")
    (lease,) = world.take("a")
    (task,) = enqueue(world, "a")
    ticket = world.poll("b")

    world.wait(5.0)
    assert world.parked(ticket)

    assert ids(world.report(lease, succeeded(seconds=1.0))) == [task]


def test_a_task_that_is_cancelled_or_changed_while_it_waits_is_gone_from_there() -> None:
    world = World(WAIT)
    settled(world, "a", "b")
    enqueue(world, "a")
    world.take("a")
    (task,) = enqueue(world, "a")
    ticket = world.poll("b")
    world.core.backlog.withdraw(world.core.tasks[task])
    world.tampered = True

    world.wait(2.0)

    assert world.parked(ticket)
    assert not len(world.core.backlog.pool("default").homes)
