import pytest

from asyncproc.core.retry import MAX_ATTEMPTS, MAX_BACKOFF_S, RetryPolicy, constant, exponential, retry_at


def waits(policy: RetryPolicy, spread: float = 0.0) -> list[float | None]:
    return [retry_at(policy, attempt, spread, now=0.0) for attempt in range(1, policy.max_attempts + 1)]


def test_the_last_attempt_has_no_successor() -> None:
    assert waits(constant(3, 5)) == [5, 5, None]
    assert waits(constant(1, 5)) == [None]


def test_an_attempt_beyond_the_last_has_no_successor_either() -> None:
    assert retry_at(constant(3, 5), attempt=4, spread=0.0, now=0.0) is None


def test_waits_grow_by_the_factor_up_to_the_cap() -> None:
    assert waits(exponential(6, base_s=2.0, factor=3.0, cap_s=50.0, jitter=0)) == [2, 6, 18, 50, 50, None]


def test_jitter_spreads_the_wait_by_its_share_and_no_more() -> None:
    policy = exponential(2, base_s=10.0, jitter=0.1)
    assert [retry_at(policy, 1, spread, 100.0) for spread in (-1.0, 0.0, 0.5, 1.0)] == [109.0, 110.0, 110.5, 111.0]


def test_the_wait_counts_from_now() -> None:
    assert retry_at(constant(2, 5), 1, 0.0, now=1000.0) == 1005.0


@pytest.mark.parametrize("factor", [2.0, 1e5, 1e300])
def test_no_factor_leads_beyond_the_cap(factor: float) -> None:
    policy = RetryPolicy(MAX_ATTEMPTS * 100, 1.0, factor, MAX_BACKOFF_S, 0.0)
    assert retry_at(policy, MAX_ATTEMPTS * 90, 0.0, now=0.0) == MAX_BACKOFF_S
