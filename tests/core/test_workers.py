import pytest

from asyncproc.core.workers import FLOOR_S, Poll, RunTimes, Worker


def test_a_type_that_never_ran_counts_as_long() -> None:
    assert RunTimes(unknown_s=0.02).estimate("Work") == 0.02


def test_the_estimate_follows_recent_run_times() -> None:
    times = RunTimes(unknown_s=0.02)
    times.observe("Work", 1.0)
    assert times.estimate("Work") == 1.0
    times.observe("Work", 2.0)
    assert times.estimate("Work") == pytest.approx(1.2)
    assert times.estimate("Other") == 0.02


def test_no_attempt_is_free() -> None:
    times = RunTimes(unknown_s=0.02)
    times.observe("Work", 0.0)
    assert times.estimate("Work") == FLOOR_S


def test_free_slots_take_work_of_any_length() -> None:
    worker = Worker("a", "default", concurrency=2)
    worker.hold(b"1", 1000.0, alone=False)
    assert worker.has_room(1000.0, prefetch_s=0.02, max_held=10)
    worker.hold(b"2", 1000.0, alone=False)
    assert not worker.has_room(0.00002, prefetch_s=0.02, max_held=10)


def test_beyond_the_slots_only_what_is_short_and_begins_soon_and_no_more_than_may_be_held() -> None:
    worker = Worker("a", "default", concurrency=1)
    worker.hold(b"1", 0.019, alone=False)
    assert worker.has_room(0.019, prefetch_s=0.02, max_held=10)
    assert not worker.has_room(0.02, prefetch_s=0.02, max_held=10)
    assert not worker.has_room(0.001, prefetch_s=0.02, max_held=1)
    worker.hold(b"2", 0.001, alone=False)
    assert not worker.has_room(0.001, prefetch_s=0.02, max_held=10)


def test_beside_a_suspect_there_is_no_room_until_it_is_gone() -> None:
    worker = Worker("a", "default", concurrency=4)
    worker.hold(b"1", 0.001, alone=True)
    assert not worker.has_room(0.001, prefetch_s=0.02, max_held=10)
    worker.release(b"1")
    assert worker.has_room(0.001, prefetch_s=0.02, max_held=10)


def test_an_idle_worker_owes_nothing() -> None:
    worker = Worker("a", "default", concurrency=1)
    for number in range(10):
        worker.hold(bytes([number]), 0.1 * number, alone=False)
    for number in range(10):
        worker.release(bytes([number]))
    assert worker.held_s == 0.0


def test_releasing_what_is_not_held_changes_nothing() -> None:
    worker = Worker("a", "default", concurrency=1)
    worker.hold(b"1", 0.5, alone=False)
    worker.release(b"2")
    assert (worker.held, worker.held_s) == ({b"1": 0.5}, 0.5)


def test_a_poll_that_reported_is_answered_before_one_that_can_stay_parked() -> None:
    parked, reported, later = (Poll(1, 0.0, False), Poll(2, 0.0, True), Poll(3, 0.0, False))
    worker = Worker("a", "default", concurrency=1, polls=[parked, reported, later])
    assert [worker.take_poll() for _ in range(4)] == [reported, parked, later, None]
