"""For how long finished tasks are kept, where queues keep them for times of their own."""

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from asyncproc.core.states import State


class Kept(NamedTuple):
    """For how many seconds finished tasks are kept at least; what is not named is kept for ever."""

    by_state: Mapping[State, float]
    by_queue: Mapping[str, Mapping[State, float]] = {}
    """Of the queues that differ, and only the states in which they do."""

    def shortest(self) -> dict[State, float]:
        """Before that nothing of a state is over; only states of which something ever is."""
        found = dict(self.by_state)
        for kept in self.by_queue.values():
            for state, seconds in kept.items():
                found[state] = min(seconds, found.get(state, inf))
        return found

    def longest(self, state: State) -> float:
        """After that all of it is over."""
        own = (kept[state] for kept in self.by_queue.values() if state in kept)
        return max([self.by_state.get(state, inf), *own])

    def over(self, state: State, age_s: float) -> "Over":
        """What of a state is over where it ended so long ago."""
        is_over = self.by_state.get(state, inf) <= age_s
        own = {queue: kept[state] <= age_s for queue, kept in self.by_queue.items() if state in kept}
        return Over(tuple(sorted(queue for queue, its in own.items() if its != is_over)), not is_over)


class Over(NamedTuple):
    queues: tuple[str, ...]
    these: bool
    """Tasks of these queues, or those of all others."""

    def __bool__(self) -> bool:
        return bool(self.queues) or not self.these
