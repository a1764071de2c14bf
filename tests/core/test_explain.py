"""Why a task waits: what is ahead, what blocks it, and when it may start."""

import pytest

from asyncproc.core.events import RulesChanged
from asyncproc.core.explain import Look, look_at, starts_at
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import Pause, QueueRules, RateLimit, Rules, TypeRules
from asyncproc.core.task import TaskId
from simulation.world import NOON, ONCE, World, failed, succeeded


def look(world: World, task: TaskId) -> Look:
    return look_at(world.core, world.core.tasks.get(task) or world.row(task))


@pytest.fixture
def world() -> World:
    world = World(CoreSettings(prefetch_s=0.0))
    world.register("w", concurrency=2)
    return world


def kinds(world: World, task: TaskId) -> list[tuple[str, str]]:
    return [(reason.kind, reason.name) for reason in look(world, task).reasons]


def test_what_is_ahead_is_what_has_a_better_rank_in_the_same_queue(world: World) -> None:
    world.enqueue(priority=1)
    world.enqueue(type_name="Other")
    task = world.enqueue()
    world.enqueue()
    world.enqueue(queue="mail")

    seen = look(world, task)

    assert (seen.ahead, seen.is_whole, seen.running_ahead) == ({"Work": 1, "Other": 1}, True, {})
    assert (seen.pool, seen.slots, seen.share) == ("default", 2, 0.5)
    assert seen.reasons == []


def test_a_task_that_was_taken_out_is_not_ahead(world: World) -> None:
    first = world.enqueue()
    task = world.enqueue()
    world.core.backlog.withdraw(world.core.tasks[first])
    assert look(world, task).ahead == {}


def test_what_is_on_disk_alone_is_counted_there() -> None:
    world = World(CoreSettings(prefetch_s=0.0, window=4))
    tasks = [world.enqueue() for _ in range(10)]
    lease = world.take("w")[0]
    seen = look(world, tasks[-1])
    assert not seen.is_whole
    assert seen.running_ahead == {"Work": 1}
    assert lease.task == tasks[0]
    assert look(world, tasks[1]).is_whole


def test_a_task_in_memory_may_have_others_on_disk_before_it() -> None:
    world = World(CoreSettings(prefetch_s=0.0, window=32))
    for _ in range(100):
        world.enqueue()
    late = world.enqueue(type_name="Other")
    assert late in world.core.tasks
    assert not look(world, late).is_whole


def test_what_waits_for_its_instant_says_so(world: World) -> None:
    task = world.enqueue(delay_s=60)
    (reason,) = look(world, task).reasons
    assert (reason.kind, reason.text, reason.until) == ("instant", "it waits for its instant, in 60.0 s", NOON + 60)
    assert starts_at(look(world, task), {}) == NOON + 60


def test_a_pool_without_workers_and_one_that_is_full_say_so(world: World) -> None:
    world.turn(RulesChanged(world.ticket(), Rules({"gpu": QueueRules(pool="gpu")})))
    assert kinds(world, world.enqueue(queue="gpu")) == [("pool", "gpu")]
    assert starts_at(look(world, world.enqueue(queue="gpu")), {}) is None
    for _ in range(2):
        world.enqueue()
        world.take("w")
    task = world.enqueue()
    (reason,) = look(world, task).reasons
    assert (reason.kind, reason.text) == ("busy", "2 of 2 slots of pool default are taken")


def test_pauses_limits_and_rates_are_named(world: World) -> None:
    rules = Rules(
        {"default": QueueRules(max_running=1)},
        {"Work": TypeRules(draws=(("api", 1.0),))},
        {"api": RateLimit(per_s=0.5, burst=1.0)},
    )
    world.turn(RulesChanged(world.ticket(), rules))
    world.enqueue()
    world.take("w")
    task = world.enqueue()
    assert kinds(world, task) == [("queue", "default"), ("rate", "api")]
    paused = Rules(pauses=(Pause("queue", "default", reason="deploy", by="ada"),))
    world.turn(RulesChanged(world.ticket(), paused))
    assert [reason.text for reason in look(world, task).reasons] == ["the queue default is paused by ada: deploy"]
    assert starts_at(look(world, task), {}) is None


def test_a_suspect_says_so(world: World) -> None:
    task = world.enqueue()
    world.take("w")
    world.lose("w")
    assert kinds(world, task) == [("pool", "default"), ("suspect", "")]


def test_a_task_that_runs_has_no_reason_to_wait(world: World) -> None:
    task = world.enqueue()
    world.take("w")
    seen = look(world, task)
    assert (seen.state, seen.reasons, starts_at(seen, {})) == (State.RUNNING, [], None)


def test_the_start_is_estimated_by_recent_run_times(world: World) -> None:
    lease = world.lease(world.enqueue(retry=ONCE), "w")
    world.report(lease, failed(seconds=4.0))
    tasks = [world.enqueue() for _ in range(11)]

    seen = look(world, tasks[-1])

    assert seen.run_s == {"Work": 4.0}
    assert starts_at(seen, seen.ahead) == NOON + 10 * 4.0 / 2
    assert starts_at(look(world, tasks[0]), {}) == NOON


def test_a_queue_that_shares_its_pool_waits_longer() -> None:
    world = World(CoreSettings(prefetch_s=0.0, queues={"mail": QueueRules(weight=3)}))
    world.register("w")
    lease = world.lease(world.enqueue(), "w")
    world.report(lease, succeeded(seconds=2.0))
    world.enqueue(queue="mail")
    world.enqueue()
    task = world.enqueue()
    seen = look(world, task)
    assert seen.share == 0.25
    assert starts_at(seen, seen.ahead) == NOON + 8.0


def test_what_never_ran_cannot_be_estimated(world: World) -> None:
    world.enqueue()
    task = world.enqueue()
    assert starts_at(look(world, task), look(world, task).ahead) is None
