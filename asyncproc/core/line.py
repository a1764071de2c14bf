"""The order in which a worker begins what it holds."""

from collections import deque
from collections.abc import Container, Iterable

from asyncproc.core.events import Lease
from asyncproc.core.task import TaskId


class Line:
    """Leases that wait for a slot, as they came; only a better rank goes before the worse ones of its own queue.

    Between queues the QueueActor has decided already, by their weights.
    """

    __slots__ = ("_leases", "_worst")

    def __init__(self) -> None:
        self._leases: deque[Lease] = deque()
        self._worst: dict[str, float] = {}
        """By queue, no better than the rank of any that waits: what is worse still needs no look at the others."""

    def __len__(self) -> int:
        return len(self._leases)

    def put(self, leases: Iterable[Lease]) -> None:
        if not self._leases:
            self._worst.clear()
        worst = self._worst
        for lease in leases:
            queue, rank = lease[4], lease[6]
            known = worst.get(queue)
            if known is None or rank >= known:
                worst[queue] = rank
                self._leases.append(lease)
            else:
                self._leases.insert(self._place(queue, rank), lease)

    def pop(self) -> Lease:
        """The next to begin. Raises `IndexError` where none waits."""
        return self._leases.popleft()

    def take_alike(self, type_name: str, most: int) -> list[Lease]:
        """The first of this type, before others that came first; without suspects, which go by themselves."""
        leases, taken = self._leases, list[Lease]()
        while leases and len(taken) < most and leases[0][3] == type_name and not leases[0][8]:
            taken.append(leases.popleft())
        if len(taken) == most or not leases:
            return taken
        left: deque[Lease] = deque()
        for lease in leases:
            fits = len(taken) < most and lease[3] == type_name and not lease[8]
            (taken if fits else left).append(lease)
        self._leases = left
        return taken

    def take(self, ids: Container[TaskId] | None = None) -> list[Lease]:
        """Those of these tasks, or all: they do not wait here any more."""
        taken = [lease for lease in self._leases if ids is None or lease[0] in ids]
        self._leases = deque(lease for lease in self._leases if ids is not None and lease[0] not in ids)
        return taken

    def _place(self, queue: str, rank: float) -> int:
        """Behind all of the queue that are no worse."""
        place = at = len(self._leases)
        for other in reversed(self._leases):
            at -= 1
            if other[4] == queue:
                if other[6] <= rank:
                    break
                place = at
        return place
