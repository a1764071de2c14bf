"""Tasks that a worker runs several of in one call: they share a slot, and nothing else."""

from asyncproc.core.batches import Batching
from asyncproc.core.events import RulesChanged
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import QueueRules, Rules, TypeRules
from asyncproc.core.task import TaskId
from simulation.world import ONCE, Granted, World, failed, succeeded

FOUR = {"Embed": Batching(4, 0.0)}
WAITING = {"Embed": Batching(4, 0.5)}


def embeds(world: World, number: int, priority: int = 0) -> list[TaskId]:
    return world.enqueue_all([world.new(type_name="Embed", priority=priority) for _ in range(number)])


def ids(leases: list[Granted]) -> list[TaskId]:
    return [lease.task for lease in leases]


def test_a_slot_takes_as_many_as_fill_a_batch() -> None:
    world = World()
    world.register("a", concurrency=2, batching=FOUR)
    tasks = embeds(world, 11)

    assert ids(world.take("a")) == tasks[:8]
    assert world.take("a") == []


def test_a_batch_is_filled_before_another_worker_begins_one() -> None:
    world = World()
    for name in "abc":
        world.register(name, batching=FOUR)
    tickets = {name: world.poll(name) for name in "abc"}
    embeds(world, 6)

    assert [len(world.granted(tickets[name], name)) for name in "ab"] == [4, 2]
    assert world.parked(tickets["c"])


def test_a_worker_that_batches_nothing_gets_one_a_slot() -> None:
    world = World()
    world.register("a", concurrency=2)
    embeds(world, 6)

    assert len(world.take("a")) == 2


def test_the_slot_is_free_when_the_last_of_the_batch_has_ended() -> None:
    world = World()
    world.register("a", batching=FOUR)
    embeds(world, 8)
    leases = world.take("a")

    for lease in leases[:3]:
        assert world.report(lease, succeeded(seconds=1.0)) == []
    assert len(world.report(leases[3], succeeded(seconds=1.0))) == 4


def test_each_task_of_a_batch_ends_for_itself() -> None:
    world = World()
    world.register("a", batching=FOUR)
    tasks = embeds(world, 2)
    tasks += world.enqueue_all([world.new(type_name="Embed", retry=ONCE)])
    first, second, third = world.take("a")

    world.report(first, succeeded(b"1"))
    world.report(second, failed())
    world.report(third, failed())

    assert [world.state(task) for task in tasks] == [State.SUCCEEDED, State.RETRYING, State.FAILED]


def test_short_ones_are_given_ahead_by_whole_batches() -> None:
    world = World()
    world.register("a", batching=FOUR)
    embeds(world, 40)
    for lease in world.take("a"):
        world.report(lease, succeeded(seconds=0.004))

    # About 35 ms ahead: two batches and a bit, and then whole batches.
    assert len(world.core.workers["a"].held) % 4 == 0
    assert 8 <= len(world.core.workers["a"].held) <= 12


def test_others_of_the_type_ride_along_though_another_task_is_next() -> None:
    world = World()
    world.register("a", batching=FOUR)
    first, other, second, third = world.enqueue_all(
        [world.new(type_name=name) for name in ("Embed", "Work", "Embed", "Embed")]
    )

    assert ids(world.take("a")) == [first, second, third]
    assert world.state(other) is State.QUEUED


def test_nobody_rides_along_who_would_take_a_place_from_who_is_next() -> None:
    world = World(CoreSettings(queues={"default": QueueRules(max_running=2)}))
    world.register("a", batching=FOUR)
    first, *_ = world.enqueue_all([world.new(type_name=name) for name in ("Embed", "Work", "Embed", "Embed")])

    assert ids(world.take("a")) == [first]


def test_a_limit_counts_tasks_and_not_batches() -> None:
    world = World()
    world.turn(RulesChanged(world.ticket(), Rules(types={"Embed": TypeRules(max_running=3)})))
    world.register("a", concurrency=2, batching=FOUR)
    embeds(world, 8)

    assert len(world.take("a")) == 3


def test_who_waits_for_company_gets_it_and_then_no_more() -> None:
    world = World()
    for name in "ab":
        world.register(name, batching=WAITING)
    (first,) = embeds(world, 1)
    assert ids(world.take("a")) == [first]
    a, b = world.poll("a"), world.poll("b")

    joined = embeds(world, 2)
    assert ids(world.granted(a, "a")) == joined
    assert world.parked(b)

    world.wait(0.6)
    a = world.poll("a")
    late = embeds(world, 1)
    assert world.parked(a)
    assert ids(world.granted(b, "b")) == late


def test_one_that_may_have_come_too_late_is_called_back_if_nothing_moves() -> None:
    world = World()
    world.register("a", batching=WAITING)
    embeds(world, 1)
    world.take("a")
    world.poll("a")
    world.wait(0.4)
    embeds(world, 1)
    ticket = world.poll("a")

    world.wait(0.2)

    assert len(world.recalled(ticket)) == 2


def test_all_aboard_are_suspects_and_each_then_takes_a_slot() -> None:
    world = World()
    world.register("a", batching=FOUR)
    tasks = embeds(world, 4)
    world.take("a")
    world.lose("a")
    world.register("b", concurrency=3, batching=FOUR)

    leases = world.take("b")

    assert len(leases) == 3
    assert [world.row(task).losses for task in tasks] == [1] * 4


def test_a_successor_counts_what_runs_and_calls_back_what_does_not_fit() -> None:
    world = World()
    world.register("a", concurrency=2, batching=FOUR)
    embeds(world, 12)
    held = world.take("a")
    world.restart()
    world.turn()

    world.register("a", *held, concurrency=2, batching=FOUR)
    ticket = world.poll("a")

    assert world.core.workers["a"].taken == 2
    assert world.parked(ticket)
    for lease in held:
        world.poll("a", (lease.task, lease.number, *succeeded()[2:]))
    assert world.core.workers["a"].late == 0
