"""When a worker has done enough: code that leaks is cured by a new process."""

from threading import Lock
from typing import Final

import psutil

from asyncproc.clock import monotonic

LOOK_S: Final = 1.0
"""Memory is looked at no more often."""


class Wear:
    """Counts what one process has done, and looks at what it takes; asked by all slots at once."""

    def __init__(self, most_tasks: int | None, most_bytes: int | None) -> None:
        self._most_tasks = most_tasks
        self._most_bytes = most_bytes
        self._ended = 0
        self._looked_at = monotonic()
        self._said = most_tasks is None and most_bytes is None
        self._lock = Lock()

    def after_one_more(self) -> str:
        """Why the process is to be replaced, said once; empty as long as it is not."""
        if self._said:
            return ""
        with self._lock:
            self._ended += 1
            why = self._why()
            self._said = self._said or bool(why)
        return why

    def _why(self) -> str:
        if self._said:
            return ""
        if self._most_tasks is not None and self._ended >= self._most_tasks:
            return f"it has ended {self._ended} tasks"
        if self._most_bytes is not None and monotonic() - self._looked_at >= LOOK_S:
            self._looked_at = monotonic()
            taken = psutil.Process().memory_info().rss
            if taken > self._most_bytes:
                return f"it takes {taken} bytes of memory, more than {self._most_bytes}"
        return ""
