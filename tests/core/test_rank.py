import pytest

from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY, STRICT_AGING_S, micros_until, rank, to_micros


def test_of_equal_priority_the_one_that_waits_longer_goes_first() -> None:
    assert rank(100.0, 3, 60.0) < rank(100.001, 3, 60.0)


def test_a_level_of_priority_is_worth_the_aging_time_and_not_more() -> None:
    urgent = rank(1000.0, 1, 60.0)
    assert rank(941.0, 0, 60.0) > urgent
    assert rank(939.0, 0, 60.0) < urgent


def test_strict_priority_outweighs_any_wait() -> None:
    year_s = 365 * 86_400
    for priority in range(MIN_PRIORITY, MAX_PRIORITY):
        assert rank(1.8e9 + 50 * year_s, priority + 1, STRICT_AGING_S) < rank(1.8e9, priority, STRICT_AGING_S)


@pytest.mark.parametrize("priority", [MIN_PRIORITY, -1, 0, 1, MAX_PRIORITY])
def test_strict_ranks_still_tell_apart_what_comes_a_millisecond_later(priority: int) -> None:
    assert rank(1.8e9, priority, STRICT_AGING_S) < rank(1.8e9 + 0.001, priority, STRICT_AGING_S)


def test_an_instant_is_kept_as_postgres_keeps_it() -> None:
    assert to_micros(1_800_000_000.123_456_3) == 1_800_000_000.123_456
    assert to_micros(to_micros(1_800_000_000.7)) == to_micros(1_800_000_000.7)


def test_the_microsecond_until_an_instant_is_not_after_it() -> None:
    for instant in (1_800_000_000.123_456_3, 1_800_000_000.123_456_7, 1_800_000_000.7, 1_800_000_000.0):
        until = micros_until(instant)
        assert instant - 1e-6 < until <= instant
        assert until == to_micros(until) == micros_until(until)
