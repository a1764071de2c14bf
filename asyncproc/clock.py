"""The only place that reads clocks or draws chance."""

import random
import time


class AnchoredClock:
    """Seconds since 1970 that never go back: one reading of a trusted wall clock, carried on by the monotonic clock.

    The QueueActor anchors it at the database's clock when its reign begins: a step of the machine's own clock then
    neither starts a task early nor holds one back, and a head that moved to another machine keeps the same time.
    """

    def __init__(self, wall: float) -> None:
        self._offset = wall - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()


def wall_now() -> float:
    """Seconds since 1970 by this machine's clock."""
    return time.time()


def monotonic() -> float:
    """Seconds on a clock that is good for nothing but differences within this process."""
    return time.monotonic()


def spread() -> float:
    """A number in [-1, 1], for the jitter of a wait."""
    return random.uniform(-1.0, 1.0)


class TaskIds:
    """Makes UUIDv7 as 16 bytes: time in ms, then a counter that grows within the ms, then chance (RFC 9562, method 1).

    Ids of one maker are strictly increasing, which is what keeps tasks of one request in their order.
    """

    def __init__(self) -> None:
        self._last_ms = 0
        self._count = 0

    def make(self) -> bytes:
        ms = max(time.time_ns() // 1_000_000, self._last_ms)
        self._count = self._count + 1 if ms == self._last_ms else random.getrandbits(10)
        if self._count >= 1 << 12:
            ms, self._count = ms + 1, 0
        self._last_ms = ms
        tail = (0b10 << 62) | random.getrandbits(62)
        return ((ms << 80) | (0x7 << 76) | (self._count << 64) | tail).to_bytes(16)


def id_text(task_id: bytes) -> str:
    """The 36 characters people see; `UUID` would take four times as long."""
    text = task_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
