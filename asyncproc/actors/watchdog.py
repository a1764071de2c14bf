"""What holds attempts to their time limits, though their code holds on to its thread."""

import ctypes
import faulthandler
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, RLock, Thread
from typing import Final

from asyncproc.clock import monotonic
from asyncproc.core.events import Lease
from asyncproc.core.task import TimeLimits
from asyncproc.errors import SoftTimeLimitExceeded, TimeLimitExceeded

log = logging.getLogger(__name__)

LAST_RESORT_S: Final = 1.0
"""How often the last resort is set anew: it would cost too much to do so for every attempt."""
LAST_RESORT_MARGIN_S: Final = 2.0
"""How long after a hard limit the process ends itself where no Python code has had a chance to end it properly."""
_STDERR: Final = 2
_NEVER: Final = float("inf")


@dataclass(slots=True, eq=False)
class Attempt:
    """One run of a task that has a limit."""

    lease: Lease
    thread: int
    """Where its code runs: for the stack that its error shows."""
    interrupt: Callable[[], object]
    """Tells the code to come to an end. Called at most once, and never after `Watchdog.end`."""
    began: float = field(default_factory=monotonic)
    extended_s: float = 0.0
    """By how much its limits were put off."""
    interrupted: bool = False
    over: bool = False
    given_up: bool = False
    """It passed its hard limit: that is how it ended, whatever comes of it."""
    exceeds: Callable[[float], Exception] = TimeLimitExceeded
    """Makes the error of that, given the limit."""

    def hard_at(self) -> float:
        return self.began + (self.limit_s() or _NEVER)

    def limit_s(self) -> float:
        """How long it may take in all; 0 is without limit."""
        return extended(self.lease[7], self.extended_s)

    def soft_at(self) -> float:
        return _NEVER if self.interrupted else self.began + (self.lease[7].soft_timeout_s or _NEVER) + self.extended_s


def extended(limits: TimeLimits, by_s: float) -> float:
    """The hard limit, put off; 0 where there is none."""
    if not limits.timeout_s:
        return 0.0
    put_off_s = limits.timeout_s + by_s
    return min(put_off_s, limits.last_s) if limits.last_s else put_off_s


class Watchdog:
    """A thread that wakes when a limit is reached. What has no limit costs nothing, what ends in time hardly anything.

    Where C code keeps the interpreter to itself no thread of Python's can act: a timer of `faulthandler`, which needs
    none, then writes all stacks to the log and ends the process.
    """

    def __init__(self, overdue: Callable[[Attempt], None]) -> None:
        """`overdue` is told of an attempt that passed its hard limit; its process is to end."""
        self._overdue = overdue
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._attempts: set[Attempt] = set()
        self._wakes_at = _NEVER
        self._thread: Thread | None = None
        self._last_resort_at = _NEVER

    def begin(
        self,
        lease: Lease,
        thread: int,
        interrupt: Callable[[], object],
        exceeds: Callable[[float], Exception] = TimeLimitExceeded,
    ) -> Attempt:
        attempt = Attempt(lease, thread, interrupt, exceeds=exceeds)
        with self._changed:
            self._attempts.add(attempt)
            if self._last_resort_at == _NEVER:
                # By the thread that is about to run it: no other one may get the interpreter again.
                self._set_last_resort(attempt.hard_at())
            if self._thread is None:
                self._thread = Thread(target=self._live, name="watchdog", daemon=True)
                self._thread.start()
            elif _look_at(attempt) < self._wakes_at:
                self._changed.notify()
        return attempt

    def end(self, attempt: Attempt) -> bool:
        """False where the attempt was given up before: its end is not to be told. May be called again."""
        with self._changed:
            attempt.over = True
            self._attempts.discard(attempt)
            return not attempt.given_up

    def extend(self, attempt: Attempt, by_s: float) -> None:
        """Put off what is not past. By the thread that asks: no other one may get the interpreter again.

        The lock itself is taken and not the condition: an interrupt that came while the latter is entered, which is
        Python code, would leave it locked for ever.
        """
        with self._lock:
            attempt.extended_s += by_s
            if self._last_resort_at != _NEVER:
                self._set_last_resort(min((each.hard_at() for each in self._attempts), default=_NEVER))

    def _live(self) -> None:
        try:
            self._watch()
        except BaseException:
            # Without it no task would ever be held to its limits again.
            log.critical("the watchdog failed: the worker ends", exc_info=True)
            os._exit(1)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = monotonic()
                for attempt in self._attempts:
                    if attempt.soft_at() <= now:
                        attempt.interrupted = True
                        attempt.interrupt()
                given_up = [attempt for attempt in self._attempts if attempt.hard_at() <= now]
                for attempt in given_up:
                    attempt.given_up = True
                self._attempts.difference_update(given_up)
                self._set_last_resort(min((attempt.hard_at() for attempt in self._attempts), default=_NEVER))
            for attempt in given_up:
                self._overdue(attempt)
            with self._changed:
                self._wakes_at = min(map(_look_at, self._attempts), default=_NEVER)
                if self._last_resort_at != _NEVER:
                    # What it was meant for may end, and must not end the process after it.
                    self._wakes_at = min(self._wakes_at, monotonic() + LAST_RESORT_S)
                self._changed.wait(None if self._wakes_at == _NEVER else max(0.0, self._wakes_at - monotonic()))

    def _set_last_resort(self, at: float) -> None:
        if at == self._last_resort_at:
            return
        self._last_resort_at = at
        if at == _NEVER:
            faulthandler.cancel_dump_traceback_later()
        else:
            seconds = max(0.0, at - monotonic()) + LAST_RESORT_MARGIN_S
            faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)


def _look_at(attempt: Attempt) -> float:
    """When the watchdog is to look at the attempt next."""
    return min(attempt.soft_at(), attempt.hard_at())


def interrupt_thread(thread: int) -> None:
    """Raise `SoftTimeLimitExceeded` in a thread, where it runs Python code next."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SoftTimeLimitExceeded))


def forget_interrupt(thread: int) -> None:
    """Take back what `interrupt_thread` has set and the thread has not seen."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
