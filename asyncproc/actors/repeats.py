"""Which tasks came by a repeated call: the call before it may still be on its way.

A late first call finds its tasks in `task_done`, where an insert does not look. Without this they would run again.
"""

from collections.abc import Iterable
from typing import Final

from asyncproc.clock import monotonic
from asyncproc.core.task import NewTask, TaskId

KEPT_S: Final = 600.0
"""Long after the deadline of any call, and of its connection."""
MOST: Final = 100_000
"""Repetitions are rare; past this the oldest are forgotten."""


class Repeats:
    """Ids of one reign, forgotten in the order in which they last came."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._noted: dict[TaskId, float] = {}

    def note(self, tasks: Iterable[NewTask]) -> None:
        now = monotonic()
        for task in tasks:
            self._noted.pop(task[0], None)
            self._noted[task[0]] = now
        while len(self._noted) > self._most or (self._noted and self._oldest()[1] < now - KEPT_S):
            del self._noted[self._oldest()[0]]

    def include(self, tasks: Iterable[NewTask]) -> bool:
        return bool(self._noted) and any(task[0] in self._noted for task in tasks)

    def _oldest(self) -> tuple[TaskId, float]:
        return next(iter(self._noted.items()))
