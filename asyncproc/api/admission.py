"""How much of each kind one replica has in hand at most. What is over it is refused before any work is done for it.

Each kind has room of its own: however many enqueue, tasks are looked at and retried, and health is told.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from asyncproc.clock import monotonic
from asyncproc.config import ApiSettings
from asyncproc.errors import TooManyRequests

MAX_HEALTH: Final = 64
MAX_CHANGES: Final = 32
NO_BYTES: Final = 0
TURN_S: Final = 0.004
"""Work of one kind that is done before others get their turn."""
MOST_A_TURN: Final = 100


class Room:
    """Requests of one kind, from their headers to their answer."""

    def __init__(self, doing: str, most: int, limit: str, most_bytes: int = NO_BYTES) -> None:
        """`limit` names the setting, for those who may change it. `most_bytes` is 0 where bodies do not count."""
        self._doing = doing
        self._most = most
        self._limit = limit
        self._most_bytes = most_bytes
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def hold(self, size: int = 0) -> Iterator["Held"]:
        """Raises `TooManyRequests`. A single request is let in however large it is: its own limit is another one."""
        if self.requests >= self._most or (self.requests and self._is_full_for(size)):
            raise self._refusal()
        held = Held(self, size)
        self.requests += 1
        self.bytes += size
        try:
            yield held
        finally:
            # Also where the client has gone and Serve cancels the handler.
            self.requests -= 1
            self.bytes -= held.size

    def grow(self, size: int) -> None:
        if self.requests > 1 and self._is_full_for(size):
            raise self._refusal()
        self.bytes += size

    def _is_full_for(self, size: int) -> bool:
        return bool(self._most_bytes) and self.bytes + size > self._most_bytes

    def _refusal(self) -> TooManyRequests:
        return TooManyRequests(self._doing, self.requests, self.bytes, self._limit)


class Held:
    """One request's part of the room."""

    __slots__ = ("_room", "size")

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self.size = size

    def has(self, size: int) -> None:
        """So much of its body is here; what was not declared is added. Raises `TooManyRequests`."""
        if size > self.size:
            self._room.grow(size - self.size)
            self.size = size


class Turns:
    """Work of one kind, of however many requests: a little in each turn of the loop.

    The loop runs all that is ready before it looks for what is new. Where fifty small bodies came together, or the
    answers to fifty requests that one commit has carried, whoever came meanwhile would wait for all of them, and may
    only want to be refused. Not one request a turn either: a turn costs, most of all where another thread waits for it.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._active = 0
        """Those that work in this turn, or stopped in the middle of their work to let others go on."""
        self._is_over = False
        self._spent_s = 0.0
        self._mean_s = TURN_S
        self._since = 0.0

    async def __aenter__(self) -> None:
        if self._active or self._is_over:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._leave()
                raise
        else:
            self._active = 1
        self._since = monotonic()

    async def __aexit__(self, *_: object) -> None:
        took_s = monotonic() - self._since
        self._spent_s += took_s
        self._mean_s += (took_s - self._mean_s) / 8
        self._leave()

    def _leave(self) -> None:
        self._active -= 1
        if not self._active and not self._is_over and (self._waiting or self._spent_s >= TURN_S):
            self._is_over = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """A turn, of as many as are likely to end in it."""
        self._is_over = False
        self._spent_s = 0.0
        most = max(1, int(TURN_S / max(self._mean_s, TURN_S / MOST_A_TURN)))
        while self._waiting and self._active < most:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._active += 1
                waiter.set_result(None)


class Admission:
    """The rooms of one replica."""

    def __init__(self, limits: ApiSettings) -> None:
        self.enqueues = Room("to enqueue", limits.max_enqueues, "api.maxEnqueues", limits.max_enqueue_bytes)
        self.reads = Room("to read", limits.max_reads, "api.maxReads")
        self.watches = Room("to wait for a task", limits.max_watches, "api.maxWatches")
        self.retries = Room("to retry", limits.max_retries, "api.maxRetries")
        self.changes = Room("to change tasks or settings", MAX_CHANGES, "no more are taken")
        self.health = Room("for health", MAX_HEALTH, "no more are taken")
        self._rooms = (self.enqueues, self.reads, self.retries, self.changes, self.health)
        self.parsing = Turns()
        self.answering = Turns()

    def in_hand(self) -> int:
        """Requests of all kinds."""
        return sum(room.requests for room in self._rooms)
