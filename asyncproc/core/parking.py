"""Lanes of one queue that wait before one gate, and whose turn it is when it opens."""

from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncproc.core.gates import Gate
    from asyncproc.core.lanes import Lane, Share


class Parking:
    """By fairness key as they are served, and within one by rank."""

    __slots__ = ("_entries", "_gate", "_lanes", "_shares")

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        self._entries = 0
        """No two entries are equal: neither lanes nor shares have an order of their own."""
        self._shares: list[tuple[float, int, Share]] = []
        self._lanes: dict[Share, list[tuple[float, bytes, int, Lane]]] = {}

    def put(self, lane: "Lane") -> None:
        """Also for a lane that is here already and has a better head now."""
        head = lane.peek()
        if head is None:
            return
        self._entries += 1
        share = lane.share
        waiting = self._lanes.get(share)
        if waiting is None:
            waiting = self._lanes[share] = []
            heappush(self._shares, (share.passed, self._entries, share))
        heappush(waiting, (head[0], head[1], self._entries, lane))

    def first(self) -> "Lane | None":
        """Whose turn it is; None where nobody waits that could start."""
        while self._shares:
            passed, number, share = self._shares[0]
            lane = self._best_of(self._lanes[share])
            if lane is None:
                heappop(self._shares)
                del self._lanes[share]
            elif share.passed > passed:
                heapreplace(self._shares, (share.passed, number, share))
            else:
                return lane
        return None

    def leave(self, lane: "Lane") -> None:
        """The lane that is first goes on."""
        heappop(self._lanes[lane.share])
        lane.unpark()

    def _best_of(self, waiting: "list[tuple[float, bytes, int, Lane]]") -> "Lane | None":
        while waiting:
            rank, task_id, number, lane = waiting[0]
            head = lane.peek()
            if lane.shut is not self._gate:
                heappop(waiting)
            elif head is None or lane.stream.paused:
                heappop(waiting)
                lane.unpark()  # it has nothing that could start
            elif (head[0], head[1]) == (rank, task_id):
                return lane
            else:
                heapreplace(waiting, (head[0], head[1], number, lane))
        return None
