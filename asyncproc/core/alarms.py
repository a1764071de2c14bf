"""One instant per worker at which it is looked at though nothing was heard of it."""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

from asyncproc.core.workers import Worker


class Alarms:
    """Those of an earlier life of a name may still be pending; they ring for nobody."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def set(self, worker: Worker, at: float) -> None:
        worker.alarm_at = at
        heappush(self._heap, (at, worker.name))

    def ring(self, workers: Mapping[str, Worker], now: float) -> Iterator[Worker]:
        """Workers whose instant has come, each once; whoever is still there is to be given another one."""
        while self._heap and self._heap[0][0] <= now:
            at, name = heappop(self._heap)
            worker = workers.get(name)
            if worker is not None and worker.alarm_at == at:
                yield worker

    def next(self) -> float | None:
        return self._heap[0][0] if self._heap else None
