"""Which of a worker's leases run together in one call."""

from collections.abc import Container, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from asyncproc.clock import monotonic
from asyncproc.core.batches import Batching
from asyncproc.core.events import Lease
from asyncproc.core.line import Line
from asyncproc.core.task import TaskId


@dataclass(slots=True, eq=False)
class Batch:
    """Leases of one type in one slot."""

    type: str
    leases: list[Lease]
    room: int = 0
    until: float = 0.0
    ready: "Future[None] | None" = None
    """While it waits for others: done when it need not wait longer."""

    def waits_s(self) -> float:
        return max(0.0, self.until - monotonic())


class Batcher:
    """Groups leases in the order in which they come, as the QueueActor reckons that it does. Its owner sees to it that
    nobody calls it beside another."""

    def __init__(self, batching: Mapping[str, Batching], confines: bool) -> None:
        """`confines`: suspects run in processes of their own, each by itself."""
        self._batching = batching
        self._confines = confines
        self._open: dict[str, Batch] = {}

    def takes(self, lease: Lease) -> bool:
        return lease[3] in self._batching and not (self._confines and lease[8])

    def begin(self, lease: Lease, line: Line) -> Batch:
        """A slot is free for it, and for as many others of the line as go with it."""
        size, wait_s = self._batching[lease[3]]
        leases = [lease]
        if lease[8]:
            size = 1  # a suspect, which this process runs for another one: by itself, and without a wait
        elif size > 1 and len(line):
            leases += line.take_alike(lease[3], size - 1)
        batch = Batch(lease[3], leases, size - len(leases))
        if batch.room and wait_s and lease[3] not in self._open:
            batch.until, batch.ready = monotonic() + wait_s, Future()
            self._open[lease[3]] = batch
        return batch

    def join(self, leases: Iterable[Lease]) -> list[Lease]:
        """Those that no batch waits for."""
        if not self._open:
            return list(leases)
        others: list[Lease] = []
        for lease in leases:
            batch = None if lease[8] else self._open.get(lease[3])
            if batch is None:
                others.append(lease)
                continue
            batch.leases.append(lease)
            batch.room -= 1
            if not batch.room:
                self._end_wait(batch)
        return others

    def close(self, batch: Batch) -> list[Lease]:
        """It begins, with these."""
        if self._open.get(batch.type) is batch:
            del self._open[batch.type]
        return batch.leases

    def take(self, ids: Container[TaskId] | None) -> list[Lease]:
        """Leases of these tasks, or all, that only wait for others to go with them."""
        taken: list[Lease] = []
        for batch in list(self._open.values()):
            gone = [lease for lease in batch.leases if ids is None or lease[0] in ids]
            batch.leases = [lease for lease in batch.leases if lease not in gone]
            batch.room += len(gone)
            taken += gone
            if not batch.leases:
                self._end_wait(batch)
        return taken

    def _end_wait(self, batch: Batch) -> None:
        del self._open[batch.type]
        if batch.ready is not None and not batch.ready.done():
            batch.ready.set_result(None)
