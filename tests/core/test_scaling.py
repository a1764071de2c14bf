"""How many workers a pool should have, in simulated time."""

import pytest

from asyncproc.core.scaling import Bounds, Load, Wanted, begin, decide

BOUNDS = Bounds(least=0, most=6, target_wait_s=5.0, idle_after_s=30.0)


@pytest.mark.parametrize(
    ("load", "workers"),
    [
        (Load(), 0),
        (Load(ready=1, work_s=0.05), 1),
        (Load(ready=3_000, work_s=150.0), 6),
        (Load(ready=20, work_s=15.0), 3),
        (Load(ready=2, work_s=600.0), 2),
        (Load(ready=2, work_s=600.0, running=3, workers=3), 5),
        (Load(ready=3_000, room=4, work_s=150.0), 4),
        (Load(running=2, workers=2), 2),
        (Load(ready=100, work_s=1.0, oldest_s=9.0, running=1, workers=1), 2),
    ],
)
def test_there_are_as_many_slots_as_run_the_backlog_off_in_time(load: Load, workers: int) -> None:
    wanted = decide(BOUNDS, load, begin(load.workers, 0.0) if load.workers else Wanted(), 100.0)
    assert wanted.workers == workers


def test_a_worker_of_many_slots_counts_for_many() -> None:
    bounds = Bounds(1, 10, 5.0, 30.0, concurrency=4)
    assert decide(bounds, Load(ready=100, work_s=40.0), Wanted(), 0.0).workers == 2


def test_a_pool_of_a_number_has_that_number_whatever_waits() -> None:
    bounds = Bounds(3, 3, 5.0, 30.0)
    assert decide(bounds, Load(), Wanted(), 0.0).workers == 3
    assert decide(bounds, Load(ready=9_999, work_s=1e6, oldest_s=1e6), Wanted(), 0.0).workers == 3


def test_tasks_that_wait_too_long_bring_more_workers_as_long_as_that_helps() -> None:
    """Whatever the run times are thought to be."""
    wanted, grown = Wanted(), []
    for second in range(8):
        load = Load(ready=40, work_s=0.1, oldest_s=6.0 + second, running=wanted.workers, workers=wanted.workers)
        wanted = decide(BOUNDS, load, wanted, float(second))
        grown.append(wanted.workers)
    assert grown == [2, 3, 5, 6, 6, 6, 6, 6]
    # Not while those that were wanted are on their way.
    assert decide(BOUNDS, Load(40, work_s=0.1, oldest_s=9.0, running=1, workers=1), begin(2, 0.0), 1.0).workers == 2


def test_workers_go_only_once_fewer_were_enough_for_a_while() -> None:
    wanted = decide(BOUNDS, Load(ready=3_000, work_s=150.0), Wanted(), 0.0)
    history = []
    for second in range(1, 100):
        running = 6 if second < 20 else 2 if second < 40 else 0
        wanted = decide(BOUNDS, Load(running=running, workers=wanted.workers), wanted, float(second))
        history.append(wanted.workers)
    assert [history.index(workers) + 1 for workers in (6, 2, 0)] == [1, 49, 69]
    assert history == sorted(history, reverse=True)


def test_a_load_that_comes_and_goes_keeps_its_workers() -> None:
    wanted = Wanted()
    seen = set()
    for second in range(300):
        load = Load(ready=30, work_s=30.0) if second % 20 == 0 else Load(workers=wanted.workers)
        wanted = decide(BOUNDS, load, wanted, float(second))
        seen.add(wanted.workers)
        assert len(wanted.needed) <= 3
    assert seen == {6}


def test_new_bounds_hold_at_once() -> None:
    wanted = decide(BOUNDS, Load(ready=3_000, work_s=150.0), Wanted(), 0.0)
    assert decide(Bounds(0, 2, 5.0, 30.0), Load(), wanted, 1.0).workers == 2
    assert decide(Bounds(4, 9, 5.0, 30.0), Load(), Wanted(), 1.0).workers == 4


def test_a_pool_that_may_shrink_from_now_on_does_so_slowly() -> None:
    wanted = decide(Bounds(4, 4, 5.0, 30.0), Load(), Wanted(), 0.0)
    assert decide(BOUNDS, Load(), wanted, 10.0).workers == 4
    assert decide(BOUNDS, Load(), wanted, 31.0).workers == 0


def test_every_decision_has_its_reason() -> None:
    burst = decide(BOUNDS, Load(ready=3_000, work_s=150.0), Wanted(), 0.0)
    assert burst.reason == "3000 tasks wait, 150 s of work for a wait of 5 s: at most 6 workers"
    assert decide(BOUNDS, Load(), burst, 10.0).reason == "0 tasks run and none waits; 6 workers were needed 10 s ago"
