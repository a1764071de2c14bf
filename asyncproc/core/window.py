"""The best part of a backlog in memory, the rest on disk, in one order."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from asyncproc.core.decision import Key
from asyncproc.core.task import Task

START: Final[Key] = (float("-inf"), b"")


class Window:
    """Tasks in the order of their keys, bounded by number and by bytes of payload, of what is held of it.

    Everything up to `end` is in memory; what is worse is on disk, until a page brings it. `end` is None when nothing is
    on disk alone. The order of what comes out does not depend on the bounds.
    """

    __slots__ = ("_bytes", "_gone", "_heap", "end", "paging")

    def __init__(self, end: Key | None) -> None:
        self._heap: list[tuple[float, bytes, Task]] = []
        self._bytes = 0
        self._gone: set[Key] = set()
        """Entries of the heap that were taken out of the middle: they are passed over when they come up."""
        self.end = end
        self.paging = False

    def __len__(self) -> int:
        return len(self._heap) - len(self._gone)

    def count_before(self, place: Key) -> int:
        entries = (entry[:2] for entry in self._heap if entry[0] <= place[0])
        return sum(1 for entry in entries if entry < place and entry not in self._gone)

    def push(self, key: float, task: Task) -> bool:
        """Take the task in; False when it belongs behind the end and stays on disk."""
        if self.end is not None and (key, task.id) > self.end:
            return False
        if self._gone and (key, task.id) in self._gone:
            self._sweep()
        heappush(self._heap, (key, task.id, task))
        # Not by `_held`: a call costs as much as the rest of the line, and this is done for every task.
        self._bytes += 0 if task.left_out else len(task.payload)
        return True

    def shed(self, limit: int, limit_bytes: int) -> list[Task]:
        """Leave the worst to the disk until the bounds hold; a quarter more goes, so that this stays rare."""
        if len(self) <= limit and (self._bytes <= limit_bytes or len(self) == 1):
            return []
        self._sweep()
        self._heap.sort()  # a sorted list is a heap
        keep = size = 0
        most, most_bytes = max(1, limit * 3 // 4), limit_bytes * 3 // 4
        for _, _, task in self._heap[:most]:
            # Never so much that the next page is wanted at once: it would bring the same rows back, for ever.
            if size > limit_bytes // 2 and size + _held(task) > most_bytes:
                break
            size += _held(task)
            keep += 1
        gone = [task for _, _, task in self._heap[keep:]]
        if not gone:
            return []
        del self._heap[keep:]
        self._bytes = size
        key, task_id, _ = self._heap[-1]
        self.end = (key, task_id)
        return gone

    def discard(self, key: float, task: Task) -> None:
        """Take a task out that was pushed under this key."""
        self._gone.add((key, task.id))
        self._bytes -= _held(task)
        if len(self._gone) > len(self._heap) // 2:
            self._sweep()

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if entry[:2] not in self._gone]
        self._gone.clear()
        heapify(self._heap)

    def peek(self) -> tuple[float, bytes, Task] | None:
        while self._gone and self._heap and self._heap[0][:2] in self._gone:
            self._gone.discard(heappop(self._heap)[:2])
        return self._heap[0] if self._heap else None

    def first(self, number: int) -> Iterator[Task]:
        """The best ones, in their order."""
        heap = self._heap
        ahead = [(heap[0][:2], 0)] if heap else []
        while ahead and number > 0:
            key, at = heappop(ahead)
            if key not in self._gone:
                number -= 1
                yield heap[at][2]
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heappush(ahead, (heap[child][:2], child))

    def pop(self) -> Task:
        """The task that `peek` showed."""
        task = heappop(self._heap)[2]
        self._bytes -= 0 if task.left_out else len(task.payload)
        return task

    def rewind(self, end: Key) -> list[Task]:
        """Leave all from this key on to the disk, to be paged in anew: for the rare case that the table disagrees."""
        if self.end is not None and self.end < end:
            return []
        self._sweep()
        gone = [task for key, task_id, task in self._heap if (key, task_id) >= end]
        self._heap = [entry for entry in self._heap if entry[:2] < end]
        heapify(self._heap)
        self._bytes -= sum(_held(task) for task in gone)
        self.end = end
        return gone

    def wanted(self, limit: int, limit_bytes: int) -> int:
        """How many rows to page in now; 0 when there is enough, nothing is left, or a page is on its way."""
        if self.end is None or self.paging or len(self) > limit // 2:
            return 0
        if len(self) and self._bytes > limit_bytes // 2:
            return 0
        # A quarter at a time: the cycle waits for the page, and all that arrives waits for the cycle.
        return max(1, limit // 4)

    def page_arrived(self, last: Key | None, complete: bool) -> None:
        """Move the end to the last key of a page. Call it before the page's tasks are pushed."""
        self.paging = False
        if complete:
            self.end = None
        elif last is not None:
            self.end = last


def _held(task: Task) -> int:
    return 0 if task.left_out else len(task.payload)
