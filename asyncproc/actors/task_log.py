"""A line for each task that ended, in the worker's log, as long as somebody could read it."""

import logging
from typing import Final

from asyncproc.clock import id_text, monotonic
from asyncproc.core.events import SUCCEEDED, Outcome

LINES_A_SECOND: Final = 20


class TaskLog:
    """Ray's dashboard shows each actor's log: there people watch tasks run. Tiny tasks by the thousand are counted."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._second = 0
        self._written = 0
        self._skipped = 0

    def note(self, outcome: Outcome) -> None:
        second = int(monotonic())
        if second != self._second:
            if self._skipped:
                self._log.info("%d more tasks ended in that second", self._skipped)
            self._second, self._written, self._skipped = second, 0, 0
        if self._written >= LINES_A_SECOND:
            self._skipped += 1
            return
        self._written += 1
        task_id, _, ending, _, error, seconds, _, _ = outcome
        if ending == SUCCEEDED:
            self._log.info("task %s succeeded in %.1f ms", id_text(task_id), 1000 * seconds)
        else:
            self._log.warning("task %s failed in %.1f ms: %s", id_text(task_id), 1000 * seconds, error)
