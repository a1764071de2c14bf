"""Requests of one kind on their way to the QueueActor: those that come together share a call."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from asyncproc import failpoints
from asyncproc.clock import monotonic
from asyncproc.errors import QueueUnavailable

MAX_TASKS_A_CALL: Final = 5_000
MAX_BYTES_A_CALL: Final = 16 * 1024 * 1024
CALLS_AT_ONCE: Final = 2
"""One is on its way while the commit of the other runs."""
_QUEUEING_S: Final = 1.0
"""What a request may wait for its call, beyond the time that the call has."""

R = TypeVar("R")
A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Request(Generic[R, A]):
    content: R
    tasks: int
    size: int
    """Bytes of what it carries."""
    done: "asyncio.Future[A]"
    since: float

    def fits(self, tasks: int, size: int) -> bool:
        """Whether it can join a call that carries so much."""
        return tasks + self.tasks <= MAX_TASKS_A_CALL and size + self.size <= MAX_BYTES_A_CALL


class Lane(Generic[R, A]):
    def __init__(self, call: Callable[[list[R]], Awaitable[Sequence[A | Exception]]], timeout_s: float) -> None:
        """`call` carries many requests, and answers with an outcome for each."""
        self._call = call
        self._timeout_s = timeout_s
        self._waiting: deque[_Request[R, A]] = deque()
        self._sending = 0
        self._senders: set[asyncio.Task[None]] = set()
        """Kept because the loop alone would forget a running task."""

    def __len__(self) -> int:
        """Requests that wait for a call."""
        return len(self._waiting)

    def waited_s(self) -> float:
        """How long the first of them has waited."""
        return monotonic() - self._waiting[0].since if self._waiting else 0.0

    async def carry(self, content: R, tasks: int, size: int) -> A:
        """The outcome of the request; an exception is raised. What was sent goes on, whoever stops waiting for it."""
        done: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        request = _Request(content, tasks, size, done, monotonic())
        self._waiting.append(request)
        if self._sending < CALLS_AT_ONCE:
            self._sending += 1
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        try:
            async with asyncio.timeout(self._timeout_s + _QUEUEING_S):
                return await request.done
        except TimeoutError:
            raise QueueUnavailable(f"no answer within {self._timeout_s:g} s") from None
        finally:
            # One that nobody waits for any more holds no room until a call is free.
            if request.done.cancelled() and request in self._waiting:
                self._waiting.remove(request)

    async def _send(self) -> None:
        """Carry what waits, as much as there is in one call, until nothing waits."""
        try:
            while self._waiting:
                if requests := self._take():
                    await self._carry(requests)
        finally:
            # Here and not when the task is seen to be done: a request that came in between would wait for ever.
            self._sending -= 1

    def _take(self) -> list[_Request[R, A]]:
        """Requests for one call, those left out that were given up while they waited."""
        requests: list[_Request[R, A]] = []
        tasks = size = 0
        while self._waiting and (not requests or self._waiting[0].fits(tasks, size)):
            request = self._waiting.popleft()
            if not request.done.done():
                requests.append(request)
                tasks += request.tasks
                size += request.size
        return requests

    async def _carry(self, requests: list[_Request[R, A]]) -> None:
        failpoints.hit("api.before_send")
        try:
            outcomes = await self._call([request.content for request in requests])
        except Exception as error:
            # Whatever it is, those who wait are told: nobody else will ever answer them.
            for request in requests:
                _settle(request, error)
            if not isinstance(error, QueueUnavailable):
                raise
            return
        failpoints.hit("api.after_commit")
        for request, outcome in zip(requests, outcomes, strict=True):
            _settle(request, outcome)


def _settle(request: _Request[R, A], outcome: A | Exception) -> None:
    if request.done.done():
        return
    if isinstance(outcome, Exception):
        request.done.set_exception(outcome)
    else:
        request.done.set_result(outcome)
