"""Simulated time: it stands still but for jumps to what comes next."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from simulation.rules import Rule, Violation

NOON: Final = 1_800_000_000.0
"""When every history begins, in seconds since 1970."""
MOST_AT_ONCE: Final = 5_000
"""Events of one instant. Time that stands still does so for ever."""


class Agenda:
    """What will happen, by its instant. What is due at the same one happens in the order in which it was entered."""

    def __init__(self) -> None:
        self.now = NOON
        self.events = 0
        self._at_once = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def after(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        heappush(self._heap, (self.now + seconds, next(self._numbers), action, args))

    def run(self, until: float, over: Callable[[], bool] = lambda: False) -> bool:
        """Let things happen up to an instant; True where it was `over` before that."""
        while self._heap and self._heap[0][0] <= until:
            at, _, action, args = heappop(self._heap)
            self._at_once = self._at_once + 1 if at == self.now else 0
            if self._at_once > MOST_AT_ONCE:
                raise Violation(Rule.RESTS, f"{MOST_AT_ONCE} events at one instant, and no end")
            self.now = at
            self.events += 1
            action(*args)
            if over():
                return True
        self.now = max(self.now, until)
        return over()
