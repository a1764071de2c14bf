"""What a task raises to say itself how it goes on."""

from datetime import timedelta
from typing import Final

from asyncproc.core.task import MAX_DELAY_S


class Fail(Exception):
    """It failed, and would fail again: no further attempt is made."""


class _Later(Exception):
    """Something is to happen after a while."""

    def __init__(self, message: str = "", *, after: timedelta | float) -> None:
        """`after` is in seconds where it is a number. Raises `ValueError` where it is out of range."""
        super().__init__(message)
        self.after_s: Final = after.total_seconds() if isinstance(after, timedelta) else float(after)
        if not 0 <= self.after_s <= MAX_DELAY_S:
            raise ValueError(f"after is {after!r}: it must be between 0 and {MAX_DELAY_S:.0f} seconds")


class Retry(_Later):
    """It failed, and is to be tried again after this time and not after the back-off. It takes one of its attempts; the
    last one fails for good."""


class Snooze(_Later):
    """It did not fail: it is to run again after this time, as if it had not begun. It takes none of its attempts, so
    that nothing but a deadline ends a task that snoozes for ever."""
