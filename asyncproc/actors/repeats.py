"""Which tasks came by a repeated call: the call before it may still be on its way.

A late first call finds its tasks in `task_done`, where an insert does not look. Without this they would run again.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from asyncproc.clock import monotonic
from asyncproc.core.task import TaskId

KEPT_S: Final = 600.0
"""Long after the deadline of any call, and of its connection."""
MOST: Final = 100_000
"""Repetitions are rare; past this the oldest are forgotten."""


class Repeats:
    """Ids of one reign, forgotten in the order of their arrival."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._ids: set[TaskId] = set()
        self._calls: deque[tuple[float, list[TaskId]]] = deque()

    def note(self, ids: list[TaskId]) -> None:
        now = monotonic()
        self._calls.append((now, ids))
        self._ids.update(ids)
        while self._calls[0][0] < now - KEPT_S or (len(self._ids) > self._most and len(self._calls) > 1):
            self._ids.difference_update(self._calls.popleft()[1])

    def include(self, ids: Iterable[TaskId]) -> bool:
        return bool(self._ids) and not self._ids.isdisjoint(ids)
