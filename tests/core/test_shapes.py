"""Tasks that ask for resources, through the core: each shape has a pool, a queue's limits hold across them."""

from dataclasses import replace

import pytest

from asyncproc.core.events import RulesChanged
from asyncproc.core.explain import look_at
from asyncproc.core.scaling import load_of
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import QueueRules, Rules
from asyncproc.core.task import Options, TaskId
from simulation.world import THRICE, World, failed, succeeded

GPU = "gpu1"


class Shaped(World):
    def asking(self, shape: str, number: int = 1, queue: str = "default", priority: int = 0) -> list[TaskId]:
        tasks = [self.new(queue, priority) for _ in range(number)]
        return self.enqueue_all([(*task[:2], task[2]._replace(resources=shape), *task[3:]) for task in tasks])

    def pools(self) -> set[str]:
        return set(self.core.backlog.pools)


@pytest.fixture
def world() -> Shaped:
    world = Shaped(CoreSettings(pool_of={"films": "heavy"}))
    world.register("w")
    world.register("g", pool="default~gpu1")
    return world


def test_a_task_that_asks_runs_in_the_pool_of_its_shape_alone(world: Shaped) -> None:
    (asking,) = world.asking(GPU, priority=9)
    (film,) = world.asking(GPU, queue="films")
    plain = world.enqueue()
    assert [lease.task for lease in world.take("w")] == [plain]
    assert [lease.task for lease in world.take("g")] == [asking]
    world.register("h", pool="heavy~gpu1")
    assert [lease.task for lease in world.take("h")] == [film]


def test_those_that_no_worker_can_take_stand_in_nobodys_way(world: Shaped) -> None:
    """However many they are, and wherever they are on disk."""
    world.settings = CoreSettings(window=4)
    world.restart()
    world.asking("gpu8", 40, priority=9)
    plain = [world.enqueue() for _ in range(10)]
    world.restart()
    (lease,) = world.take("w")
    for task in plain[1:]:
        (following,) = world.report(lease, succeeded())
        assert following.task == task
        lease = following
    pool = world.core.backlog.pool("default~gpu8")
    assert load_of(world.core, pool).ready == 3, "more are on disk"
    look = look_at(
        world.core, next(task for task in world.core.tasks.values() if task.shape == "gpu8"), lambda _: "why"
    )
    assert look.reasons[0].text == "pool default~gpu8, which serves queue default, has no worker: why"


def test_a_limit_of_a_queue_holds_across_shapes(world: Shaped) -> None:
    world.turn(RulesChanged(world.ticket(), Rules({"default": QueueRules(max_running=1)})))
    (asking,) = world.asking(GPU)
    plain = world.enqueue()
    (lease,) = world.take("g")
    ticket = world.poll("w")
    assert (lease.task, world.parked(ticket)) == (asking, True)
    world.report(lease, succeeded())
    assert [lease.task for lease in world.granted(ticket, "w")] == [plain]


def test_a_suspect_stays_with_its_shape_and_so_does_a_retry(world: Shaped) -> None:
    (asking,) = world.asking(GPU)
    world.lease(asking, "g")
    world.lose("g")
    ticket = world.poll("w")
    world.register("g2", pool="default~gpu1")
    lease = world.lease(asking, "g2")
    world.report(lease, failed())
    world.wait(100.0)
    assert world.state(asking) is State.QUEUED
    assert world.parked(ticket) or not world.leases(ticket)
    world.register("g2", pool="default~gpu1")
    world.lease(asking, "g2")


def test_a_shape_without_work_and_workers_leaves_nothing_behind(world: Shaped) -> None:
    tasks = [world.asking(f"cpu{n}")[0] for n in range(1, 30)]
    assert len(world.pools()) > 29
    for n, task in enumerate(tasks, 1):
        world.register(f"c{n}", pool=f"default~cpu{n}")
        world.report(world.lease(task, f"c{n}"), succeeded())
        world.lose(f"c{n}", charged=False)
    assert world.pools() == {"default", "default~gpu1"}
    assert set(world.core.backlog._streams) <= {"default"}
    world.lose("g", charged=False)
    assert world.pools() == {"default"}


def test_asking_about_tasks_of_ever_new_shapes_leaves_nothing_behind(world: Shaped) -> None:
    for n in range(1, 400):
        look_at(
            world.core,
            replace(
                world.table.live[world.enqueue()], options=Options("Work", "q", 0, THRICE, "", resources=f"cpu{n}")
            ),
        )
    world.turn()
    assert len(world.pools()) <= 102


def test_a_queue_that_is_moved_takes_its_shapes_along(world: Shaped) -> None:
    (asking,) = world.asking(GPU)
    world.turn(RulesChanged(world.ticket(), Rules(pool_of={"default": "heavy"})))
    assert world.take("g") == []
    world.register("h", pool="heavy~gpu1")
    world.lease(asking, "h")


def test_the_load_of_a_pool_is_what_could_start(world: Shaped) -> None:
    world.asking(GPU, 5)
    pool = world.core.backlog.pool("default~gpu1")
    world.now += 7.0
    world.turn()
    load = load_of(world.core, pool)
    assert (load.ready, load.work_s, load.oldest_s, load.running, load.workers) == (5, 5.0, 7.0, 0, 1)
    (lease,) = world.take("g")
    world.report(lease, succeeded(seconds=0.5))
    load = load_of(world.core, pool)
    assert (load.ready, load.work_s, load.running) == (3, 1.5, 1)
    world.turn(RulesChanged(world.ticket(), Rules({"default": QueueRules(max_running=1)})))
    world.take("g")
    assert load_of(world.core, pool).ready == 0, "they wait for the limit, and not for a worker"
