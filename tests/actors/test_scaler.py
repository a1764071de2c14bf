"""What is wanted of which pool, without a Ray: the core is real, the workers are names."""

from collections.abc import Callable
from typing import Any

import pytest

from asyncproc.actors.places import Plan, Roll
from asyncproc.actors.scaler import Scaler
from asyncproc.config import Settings
from asyncproc.core.events import RulesChanged
from asyncproc.core.steering import Rules
from asyncproc.core.task import Options
from asyncproc.pool_precedence import pools_of
from asyncproc.pool_settings import PoolRuleSettings
from asyncproc.rules import Stored
from simulation.world import THRICE, World


class NoWorkers:
    """Pools whose workers are never there."""

    def __init__(self) -> None:
        self.roll = Roll()

    def found(self) -> list[str]:
        return []


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def scaler(world: World) -> Scaler:
    pools: Any = NoWorkers()
    settings = Settings.model_validate({"shapes": {"most": 2}})
    return Scaler(settings, pools, lambda: world.core, lambda: world.now)


@pytest.fixture
def decide(scaler: Scaler) -> Callable[..., dict[str, int]]:
    """Workers that are wanted, by pool, with these stored."""

    def plan(**stored: Any) -> dict[str, int]:
        rules = {name: PoolRuleSettings.model_validate(pool) for name, pool in stored.items()}
        scaler.obey(pools_of(scaler._settings, Stored(pools=rules)))
        scaler._decide()
        made: Plan = scaler._plan()
        return {name: arrangement.workers for name, arrangement in made.items()}

    return plan


def ask(world: World, shape: str, queue: str = "default") -> None:
    task = world.new(queue)
    world.enqueue_all([(*task[:2], Options("Work", queue, 0, THRICE, "", resources=shape), *task[3:])])


def test_only_so_many_shapes_have_workers_and_the_others_are_told_so(
    world: World, scaler: Scaler, decide: Callable[..., dict[str, int]]
) -> None:
    for shape in ("cpu1", "cpu2", "cpu3"):
        ask(world, shape)
    assert decide() == {"default": 2, "default~cpu1": 1, "default~cpu2": 1, "default~cpu3": 0}
    assert scaler.problem("default~cpu3") == (
        "no workers are made for it while there are those of 2 shapes of resources, which is the most"
    )

    # One that no node can hold keeps asking for one worker, and keeps nobody from having theirs.
    scaler._scaled["default~cpu1"].is_met = False
    ask(world, "cpu1")
    assert decide() == {"default": 2, "default~cpu1": 1, "default~cpu2": 1, "default~cpu3": 1}
    assert scaler.problem("default~cpu3") == ""


def test_a_pool_that_is_deleted_takes_those_of_its_shapes_along(
    world: World, decide: Callable[..., dict[str, int]]
) -> None:
    world.turn(RulesChanged(world.ticket(), Rules(pool_of={"films": "films"})))
    ask(world, "gpu1", "films")
    films = {"queues": ["films"], "workers": {"min": 0, "max": 3}}
    assert decide(films=films) == {"default": 2, "films": 0, "films~gpu1": 1}
    world.turn(RulesChanged(world.ticket(), Rules()))
    assert decide() == {"default": 2, "default~gpu1": 1}


def test_the_number_of_a_pool_is_what_is_set(decide: Callable[..., dict[str, int]]) -> None:
    assert decide(films={"workers": 7}) == {"default": 2, "films": 7}
    assert decide(films={"workers": {"min": 1, "max": 7}})["films"] == 7, "it shrinks once it was idle for a while"
    assert decide() == {"default": 2}
