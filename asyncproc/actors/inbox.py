"""Where calls wait for the cycle that serves them."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final

from asyncproc.core.decision import Reply
from asyncproc.core.events import Enqueued, Event, Polled, RetryAsked
from asyncproc.errors import Overloaded

MAX_ROWS_A_CYCLE: Final = 20_000
"""What one transaction carries at most, so that the commit of a flood stays short for its neighbours."""


class Inbox:
    """Events in the order of their arrival, and the calls that wait for an answer to them."""

    def __init__(self, max_rows: int) -> None:
        self._events: deque[Event] = deque()
        self._max_rows = max_rows
        self._rows = 0
        self._arrived = asyncio.Event()
        self._tickets = count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    def post(self, event: Event) -> None:
        """Tell the core something that nobody waits for."""
        self._events.append(event)
        self._rows += _rows(event)
        self._arrived.set()

    async def ask(self, make: Callable[[int], Event]) -> Reply:
        """Post the event made for a new ticket, and wait for the commit that answers it.

        Raises `Overloaded` where too many new tasks wait for their commit already, and whatever `refuse` was given.
        """
        ticket = next(self._tickets)
        event = make(ticket)
        if isinstance(event, Enqueued) and self._rows and self._rows + len(event.tasks) > self._max_rows:
            raise Overloaded(self._rows)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        self.post(event)
        try:
            return await future
        finally:
            del self._waiting[ticket]

    async def gather(self, timeout_s: float | None) -> list[Event]:
        """Everything that is there, once something is there or the time is over; no more than one commit may carry."""
        if not self._events:
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
            except TimeoutError:
                return []
        return self.take()

    def take(self) -> list[Event]:
        """What is there now, no more than one commit may carry."""
        events: list[Event] = []
        rows = 0
        while self._events and rows < MAX_ROWS_A_CYCLE:
            event = self._events.popleft()
            rows += _rows(event)
            events.append(event)
        self._rows -= rows
        if not self._events:
            self._arrived.clear()
        return events

    async def flush(self) -> None:
        """Returns when everything posted so far has been through a cycle."""
        await self.ask(lambda ticket: Enqueued(ticket, []))

    def answer(self, reply: Reply) -> None:
        """A call that was given up meanwhile is not there any more; that is not an error."""
        future = self._waiting.get(reply.ticket)
        if future is not None and not future.done():
            future.set_result(reply)

    def refuse(self, ticket: int, error: Exception) -> None:
        future = self._waiting.get(ticket)
        if future is not None and not future.done():
            future.set_exception(error)

    def refuse_requests(self, error: Exception) -> None:
        """Turn away what clients asked and no cycle has seen: they are told at once instead of waiting."""
        kept: deque[Event] = deque()
        for event in self._events:
            if isinstance(event, Enqueued | RetryAsked):
                self._rows -= _rows(event)
                self.refuse(event.ticket, error)
            else:
                kept.append(event)
        self._events = kept


def _rows(event: Event) -> int:
    if isinstance(event, Enqueued):
        return len(event.tasks)
    return len(event.outcomes) + len(event.returned) if isinstance(event, Polled) else 0
