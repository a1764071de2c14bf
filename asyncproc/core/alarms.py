"""One instant per worker at which it is looked at though nothing was heard of it.

A worker is answered after the time of a poll, and is silent if it does not come again. One that holds nothing may wait
longer where there are many, for all that an idle worker costs are the answers that say so: ten workers or ten thousand
cause about as many of them a second. Whoever is answered must be heard of as soon as any other.
"""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from math import floor

from asyncproc.core.settings import CoreSettings
from asyncproc.core.workers import Poll, Worker


class Alarms:
    """Those of an earlier life of a name may still be pending; they ring for nobody."""

    __slots__ = ("_heap", "_settings", "_turn_at")

    def __init__(self, settings: CoreSettings) -> None:
        self._heap: list[tuple[float, str]] = []
        self._settings = settings
        self._turn_at = 0.0
        """When the last of those that wait long is answered."""

    def set(self, worker: Worker, at: float) -> None:
        worker.alarm_at = at
        heappush(self._heap, (at, worker.name))

    def ring(self, workers: Mapping[str, Worker], now: float) -> Iterator[Worker]:
        """Workers whose instant has come, each once; whoever is still there is to be given another one."""
        while self._heap and self._heap[0][0] <= now:
            at, name = heappop(self._heap)
            worker = workers.get(name)
            if worker is not None and worker.alarm_at == at:
                yield worker

    def park(self, worker: Worker, ticket: int, reported: bool, now: float, workers: int) -> Poll:
        """A poll stays open until there is something to say; `workers` are registered."""
        settings, until = self._settings, now + self._settings.poll_s
        if worker.patient and not worker.held:
            # In turn, or a thousand that came together would all be answered at once, again and again; but those of
            # one second together, for of ten calls that come alone each costs three times what it does among others.
            a_turn_s = 1 / settings.idle_polls_a_second
            turn_at = min(self._turn_at + a_turn_s, now + settings.longest_poll_s, now + workers * a_turn_s)
            self._turn_at = max(turn_at, until)
            until = max(floor(turn_at), until)
        poll = Poll(ticket, until, reported)
        worker.polls.append(poll)
        if poll.until < worker.alarm_at:
            self.set(worker, poll.until)
        return poll

    def over(self, worker: Worker, now: float) -> list[Poll]:
        """Take from the worker the polls that were open as long as they may be."""
        over = [poll for poll in worker.polls if poll.until <= now]
        if over:
            worker.polls = [poll for poll in worker.polls if poll.until > now]
            self.expect(worker, now)
        return over

    def expect(self, worker: Worker, now: float) -> None:
        """It was answered, or came anew: however long it was to wait before, it is to be heard of within the usual
        time."""
        poll_s = self._settings.poll_s
        for poll in worker.polls:
            poll.until = min(poll.until, now + poll_s)
        worker.heard_at = max(worker.heard_at, now - poll_s)
        if worker.alarm_at > now + poll_s:
            self.set(worker, now + poll_s)

    def next(self) -> float | None:
        return self._heap[0][0] if self._heap else None
