"""Who is next: within a queue by rank, between queues by stride scheduling (Waldspurger and Weihl, 1995)."""

from collections.abc import Iterator
from heapq import heappop, heappush

from asyncproc.core.settings import QueueRules
from asyncproc.core.task import Task
from asyncproc.core.window import Window


class Stream:
    """The ready tasks of one queue. `passed` is the stride scheduler's virtual time of the queue."""

    __slots__ = ("active", "ahead_rank", "name", "paid", "passed", "ready", "rules", "starved")

    def __init__(self, name: str, rules: QueueRules, ready: Window) -> None:
        self.name = name
        self.rules = rules
        self.ready = ready
        self.passed = 0.0
        self.active = False
        self.starved = False
        """It ran dry only because a page was under way: it keeps its claim, as if it had never been empty."""
        self.paid = 0
        """Tasks that came back unstarted: their queue has paid for them already."""
        self.ahead_rank = float("-inf")
        """No lease that a worker was given ahead has a worse rank than this."""


class Lineup:
    """The queues of one pool that have ready tasks, the one least served for its weight in front.

    A queue that was idle starts at the virtual time of the others: it neither owns the past nor lags behind.
    """

    __slots__ = ("_heap", "_now", "_streams")

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        self._heap: list[tuple[float, str]] = []
        self._now = 0.0

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def add(self, stream: Stream) -> None:
        self._streams[stream.name] = stream

    def get(self, name: str) -> Stream | None:
        return self._streams.get(name)

    def ready(self) -> int:
        return sum(len(stream.ready) for stream in self._streams.values())

    def wake(self, stream: Stream) -> None:
        """The stream may have become non-empty."""
        if stream.active or not len(stream.ready):
            return
        if not stream.starved:
            stream.passed = max(stream.passed, self._now)
        stream.active, stream.starved = True, False
        heappush(self._heap, (stream.passed, stream.name))

    def head(self) -> tuple[Stream, Task] | None:
        """The task that would be served next; it stays where it is."""
        while self._heap:
            stream = self._streams[self._heap[0][1]]
            entry = stream.ready.peek()
            if entry is not None:
                return stream, entry[2]
            heappop(self._heap)
            stream.active = False
            stream.starved = stream.ready.end is not None
        return None

    def serve(self, stream: Stream) -> Task:
        """Take what `head` showed, and let the queue pay for it."""
        heappop(self._heap)
        # A queue that was starved serves out what it was owed: the time of the others does not go back with it.
        self._now = max(self._now, stream.passed)
        if stream.paid:
            stream.paid -= 1
        else:
            stream.passed += 1.0 / stream.rules.weight
        heappush(self._heap, (stream.passed, stream.name))
        return stream.ready.pop()
