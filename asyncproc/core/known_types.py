"""Which task types the workers of a pool know: what one of them does not know waits until all of them do.

During a rolling upgrade some workers run the new code and some the old. A task that reached one without its type would
fail an attempt there for nothing.
"""

from collections import Counter
from collections.abc import Set
from functools import reduce


class KnownTypes:
    """Of one pool. Workers that run the same code say the same set: there are one or two of these, never thousands."""

    def __init__(self) -> None:
        self._by_worker: dict[str, Set[str]] = {}
        self._sets: Counter[Set[str]] = Counter()
        self.all: Set[str] | None = None
        """What all of them know; None where nobody has said what it knows."""

    def say(self, worker: str, types: frozenset[str] | None) -> bool:
        """A worker knows these; None where it does not say, or is gone. Returns whether anything follows from it."""
        before = self._by_worker.pop(worker, None)
        if before == types:
            if types is not None:
                self._by_worker[worker] = types
            return False
        if before is not None:
            self._sets[before] -= 1
        if types is not None:
            self._by_worker[worker] = types
            self._sets[types] += 1
        self._sets = +self._sets
        known = reduce(lambda one, other: one & other, self._sets) if self._sets else None
        changed, self.all = known != self.all, known
        return changed
