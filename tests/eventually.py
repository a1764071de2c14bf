"""Waiting for what must come about, without guessing how long it takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from asyncproc.clock import monotonic

T = TypeVar("T")

PATIENCE_S: Final = 60.0
"""Ten times what the slowest of these waits takes on a busy machine: reached only where something is wrong."""
_PAUSE_S: Final = 0.02


def eventually(condition: Callable[[], T | None], within_s: float = PATIENCE_S) -> T:
    """The first truthy answer of `condition`; fails with the last one where there is none in time."""
    deadline = monotonic() + within_s
    while not (answer := condition()):
        assert monotonic() < deadline, f"it did not come about within {within_s:g} s: {answer!r}"
        time.sleep(_PAUSE_S)
    return answer


async def eventually_async(condition: Callable[[], Awaitable[T | None]], within_s: float = PATIENCE_S) -> T:
    """The same for what is asked on a loop, which goes on in between."""
    deadline = monotonic() + within_s
    while not (answer := await condition()):
        assert monotonic() < deadline, f"it did not come about within {within_s:g} s: {answer!r}"
        await asyncio.sleep(_PAUSE_S)
    return answer
