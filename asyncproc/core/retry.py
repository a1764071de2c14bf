"""When a failed attempt is repeated, and when it is the last one."""

from typing import Final, NamedTuple


class RetryPolicy(NamedTuple):
    """How often and how soon to try again. A NamedTuple: it crosses actor boundaries with every batch of tasks."""

    max_attempts: int
    """Attempts in all, the first one included."""
    base_s: float
    """Seconds before the second attempt."""
    factor: float
    """Each further wait is this many times the one before; 1 keeps it constant."""
    cap_s: float
    """No wait is longer than this, jitter apart."""
    jitter: float
    """Waits are spread by up to this part of themselves, so that failures that came together do not return together."""


MAX_ATTEMPTS: Final = 100
MAX_BACKOFF_S: Final = 86_400.0


def constant(max_attempts: int, backoff_s: float) -> RetryPolicy:
    """The seed's `backOffDuration`: the same wait each time, to the second."""
    return RetryPolicy(max_attempts, backoff_s, 1.0, MAX_BACKOFF_S, 0.0)


def exponential(
    max_attempts: int, base_s: float = 1.0, factor: float = 2.0, cap_s: float = 3600.0, jitter: float = 0.1
) -> RetryPolicy:
    """The default: waits grow from `base_s` to `cap_s`."""
    return RetryPolicy(max_attempts, base_s, factor, cap_s, jitter)


def retry_at(policy: RetryPolicy, attempt: int, spread: float, now: float) -> float | None:
    """The instant of the attempt after `attempt`, or None when that was the last one.

    `spread` is a number in [-1, 1] drawn by whoever reports the failure, so that equal inputs give equal answers here.
    """
    if attempt >= policy.max_attempts:
        return None
    try:
        delay = min(policy.base_s * policy.factor ** (attempt - 1), policy.cap_s)
    except OverflowError:
        # A large factor leaves the range of floats long before the attempts run out.
        delay = policy.cap_s
    return now + delay * (1.0 + policy.jitter * spread)
