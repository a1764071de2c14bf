"""The caretaker of tasks that were asked for in transactions of others, as the real one goes about it."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from asyncproc.core.decision import Reply
from asyncproc.core.events import Enqueued, Event
from asyncproc.core.task import NewTask
from simulation.scene import Scene

Answered: TypeAlias = Callable[[Reply | None, int], None]
Ask: TypeAlias = Callable[[Callable[[int], Event | None], Answered], None]

_POLL_S: Final = (0.05, 0.05, 1.0)
"""Some notifications are lost."""
_RETRY_S: Final = 0.3


class Requests:
    def __init__(self, scene: Scene, ask: Ask, is_over: Callable[[], bool]) -> None:
        self._scene = scene
        self._ask = ask
        self._is_over = is_over

    def drain(self) -> None:
        scene = self._scene
        if self._is_over():
            return
        if scene.away_until > scene.agenda.now:
            scene.agenda.after(_RETRY_S, self.drain)
        elif tasks := self.read():
            scene.agenda.after(scene.chance.latency() / 2, self._enqueue, tasks)
        else:
            scene.agenda.after(scene.chance.choice(_POLL_S), self.drain)

    def read(self) -> list[NewTask]:
        requests = self._scene.table.requests
        return [requests[task_id] for task_id in sorted(requests)[: self._scene.chance.choice((1, 3, 100))]]

    def _enqueue(self, tasks: list[NewTask]) -> None:
        if not self._is_over():
            self._ask(lambda ticket: Enqueued(ticket, tasks, requested=True), partial(self._answered, tasks))

    def _answered(self, tasks: list[NewTask], reply: Reply | None, _: int) -> None:
        if reply is None:
            self._flush(tasks)
        else:
            self.drain()

    def _flush(self, tasks: list[NewTask]) -> None:
        """What became of them is certain once something that came later was answered."""
        if not self._is_over():
            self._ask(lambda ticket: Enqueued(ticket, []), partial(self._flushed, tasks))

    def _flushed(self, tasks: list[NewTask], reply: Reply | None, _: int) -> None:
        if reply is None:
            self._scene.agenda.after(_RETRY_S, self._flush, tasks)
            return
        for task in tasks:
            if task[0] in self._scene.table.unfit:
                self._scene.table.requests.pop(task[0], None)  # put aside
        self.drain()
