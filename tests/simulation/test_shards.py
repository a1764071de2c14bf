"""Queues that move between QueueActors, and what so many of those carry: the short form of `simulation.scale`."""

from dataclasses import replace

import pytest

from simulation.capacity import Costs, Load, carry, most
from simulation.mutant_shards import MUTANTS, hunt
from simulation.shards import World

COSTS = Costs(
    exchange=500e-6, cycle=1e-3, enqueued=10e-6, run=20e-6, pg_cycle=500e-6, pg_enqueued=7e-6, pg_run=13e-6, wal=1_700
)
LATE = {"repeats-at-the-new-home": 19, "proves-nothing": 5}
"""Seeds before these do not see them."""
SMALL = Load(1, workers=40, tasks_a_second=8_000.0)


def test_whatever_breaks_a_queue_that_moves_loses_nothing_and_runs_nothing_twice() -> None:
    moves = takeovers = 0
    for seed in range(15):
        try:
            world = World(seed).run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        moves, takeovers = moves + world.moves, takeovers + world.takeovers
    assert moves > 100
    assert takeovers > 100


@pytest.mark.parametrize("name", MUTANTS)
def test_no_mutant_survives(name: str) -> None:
    assert hunt(name, range(LATE.get(name, 0), 30)) is not None


def test_a_crowd_of_workers_costs_two_exchanges_a_task() -> None:
    load = replace(SMALL, tasks_a_second=200.0, tasks_a_call=1)
    found = carry(load, COSTS, warm_s=0.5, seconds=0.5)
    assert found.done == pytest.approx(200, rel=0.05)
    assert found.exchanges == pytest.approx(600, rel=0.05), "one to enqueue, one to report, one to ask again"
    assert found.queue_actor == pytest.approx(found.exchanges * COSTS.exchange + found.commits * COSTS.cycle, rel=0.1)


def test_where_tasks_wait_the_answer_to_a_report_brings_the_next_one() -> None:
    load = replace(SMALL, workers=20, tasks_a_second=0.0, prefetch_s=SMALL.run_s / 2, backlog=2_000)
    found = carry(load, COSTS, warm_s=0.2, seconds=0.5)
    assert found.exchanges == pytest.approx(found.done, rel=0.1)


def test_where_exchanges_bound_a_second_shard_more_than_doubles_what_they_carry() -> None:
    one, two = (carry(load, COSTS, 0.5, 0.5) for load in (SMALL, replace(SMALL, shards=2)))
    assert not one.keeps_up(SMALL)
    assert two.keeps_up(SMALL)


def test_the_most_that_they_carry_is_found() -> None:
    load = replace(SMALL, workers=10, tasks_a_second=1_000.0, run_s=0.1, tasks_a_call=1)
    rate, found = most(load, COSTS, within=0.2)
    assert 70 < rate < 110, "ten slots and tasks of a tenth of a second"
    assert found.keeps_up(replace(load, tasks_a_second=rate))


def test_the_measured_costs_can_be_read() -> None:
    assert Costs.measured().exchange > 0
