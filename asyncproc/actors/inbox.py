"""Where calls wait for the cycle that serves them."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, NamedTuple

from asyncproc.core.decision import Reply
from asyncproc.core.events import (
    BulkAsked,
    ChangeAsked,
    Enqueued,
    Event,
    Polled,
    Purged,
    RetryAsked,
    TicksAsked,
    note_bytes,
    outcome_bytes,
)
from asyncproc.errors import Overloaded

MAX_ROWS_A_CYCLE: Final = 20_000
MAX_BYTES_A_CYCLE: Final = 32 * 1024 * 1024
"""What one transaction carries at most, so that the commit of a flood stays short for its neighbours."""
LONGEST_CYCLE_S: Final = 0.1
"""Where a cycle of so many rows took longer, the next ones carry fewer."""
FEWEST_ROWS_A_CYCLE: Final = 500
"""A cycle costs something however small it is: it is not made smaller than this."""


class _Load(NamedTuple):
    rows: int
    size: int


class Inbox:
    """Events in the order of their arrival, and the calls that wait for an answer to them."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._events: deque[tuple[Event, _Load]] = deque()
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows = 0
        self._bytes = 0
        self._taken = 0
        self._rows_a_cycle = MAX_ROWS_A_CYCLE
        self._arrived = asyncio.Event()
        self._tickets = count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    def post(self, event: Event) -> None:
        """Tell the core something that nobody waits for."""
        self._push(event, _load(event))

    def post_first(self, event: Event) -> None:
        """The same, for what the very next step must know."""
        self._events.appendleft((event, _load(event)))
        self._arrived.set()

    async def ask(self, make: Callable[[int], Event]) -> Reply:
        """Post the event made for a new ticket, and wait for the commit that answers it.

        Raises `Overloaded` where too many new tasks wait for their commit already, and whatever `refuse` was given.
        """
        ticket = next(self._tickets)
        event = make(ticket)
        load = _load(event)
        # What is requested was promised, and is one batch at most.
        if isinstance(event, Enqueued) and not event.requested and self._rows and self._is_full_for(load):
            raise Overloaded(self._rows)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        self._push(event, load)
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
        rows = size = 0
        while self._events and rows < self._rows_a_cycle and size < MAX_BYTES_A_CYCLE:
            event, load = self._events.popleft()
            rows += load.rows
            size += load.size
            events.append(event)
        self._taken = rows
        self._rows -= rows
        self._bytes -= size
        if not self._events:
            self._arrived.clear()
        return events

    def pace(self, seconds: float) -> None:
        """The cycle of what was taken last took so long: keep the next ones about as long as they should be at most."""
        if self._taken >= FEWEST_ROWS_A_CYCLE:
            fitting = int(self._taken * LONGEST_CYCLE_S / max(seconds, 1e-6))
            self._rows_a_cycle = min(MAX_ROWS_A_CYCLE, max(FEWEST_ROWS_A_CYCLE, fitting))

    async def flush(self) -> None:
        """Returns when everything posted so far has been through a cycle."""
        await self.ask(lambda ticket: Enqueued(ticket, []))

    @property
    def is_busy(self) -> bool:
        """Something waits for the next cycle."""
        return bool(self._events)

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
        kept: deque[tuple[Event, _Load]] = deque()
        for event, load in self._events:
            if isinstance(event, Enqueued | RetryAsked | ChangeAsked | BulkAsked | TicksAsked):
                self._rows -= load.rows
                self._bytes -= load.size
                self.refuse(event.ticket, error)
            else:
                kept.append((event, load))
        self._events = kept

    def _push(self, event: Event, load: _Load) -> None:
        self._events.append((event, load))
        self._rows += load.rows
        self._bytes += load.size
        self._arrived.set()

    def _is_full_for(self, load: _Load) -> bool:
        return self._rows + load.rows > self._max_rows or self._bytes + load.size > self._max_bytes


def _load(event: Event) -> _Load:
    if isinstance(event, Enqueued):
        size = sum(len(task[1]) for task in event.tasks) + sum(len(used[2]) for used in event.keys)
        edges = sum(len(task[4].parents.ids) for task in event.tasks if task[4].parents is not None)
        if event.replaced:
            size += sum(len(new[1]) for _, new in event.replaced)
        return _Load(len(event.tasks) + len(event.replaced) + edges, size)
    if isinstance(event, Polled):
        rows = len(event.returned) + sum(1 + len(outcome[7]) for outcome in event.outcomes)
        return _Load(
            rows + len(event.notes), sum(map(outcome_bytes, event.outcomes)) + sum(map(note_bytes, event.notes))
        )
    if isinstance(event, BulkAsked):
        return _Load(len(event.tasks), 0)
    if isinstance(event, TicksAsked):
        return _Load(len(event.ticks), 0)
    if isinstance(event, Purged):
        return _Load(len(event.rows), 0)
    return _Load(0, 0)
