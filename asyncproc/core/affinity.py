"""Which worker a task with an affinity key is best given to, and how long it waits for that one."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from asyncproc.core.gates import Gate
from asyncproc.core.task import Task, TaskId
from asyncproc.core.workers import Worker

if TYPE_CHECKING:
    from asyncproc.core.lanes import Lane
    from asyncproc.core.pool import Pool

HasRoom: TypeAlias = "Callable[[Lane, Worker], bool]"
"""Whether the worker has room for the next task of the lane."""

MAX_HOMES: Final = 10_000
LOOK_AHEAD: Final = 16
"""Tasks of a lane among which a worker finds its own. Nobody is overtaken by what is further behind."""


class Homes(Gate):
    """Where the keys of a pool ran last, and the lanes all of whose next tasks wait for workers that are busy.

    A lane is parked here until one of those has room, until the first of its tasks has waited long enough, or until a
    better one comes. Of a task that is passed over it is written down how long it lets that happen: from then on it
    goes to anybody.
    """

    __slots__ = ("_patience", "_pool", "_until", "_wait_s", "_workers")

    def __init__(self, pool: "Pool", wait_s: float) -> None:
        super().__init__("affinity", pool.name)
        self._pool = pool
        self._wait_s = wait_s
        self._workers: dict[str, str] = {}
        """By key, the one that ran longest ago first."""
        self._patience: dict[TaskId, float] = {}
        self._until: dict[Lane, tuple[float, Task]] = {}
        """Parked lanes: when they are let go, and the task that was in front."""

    def ran(self, task: Task, worker: str) -> None:
        """The task starts there."""
        key = task.options.affinity_key
        self._workers.pop(key, None)
        if len(self._workers) >= MAX_HOMES:
            del self._workers[next(iter(self._workers))]
        self._workers[key] = worker
        self._patience.pop(task.id, None)

    def of(self, task: Task) -> Worker | None:
        """None where it has no key, or the worker is gone."""
        worker = self._pool.workers.get(self._workers.get(task.options.affinity_key, ""))
        if worker is None or not worker.session or worker.leaving or worker is self._pool.isolation:
            return None
        return worker

    def choose(self, lane: "Lane", worker: Worker, now: float, has_room: HasRoom) -> tuple[Task, Worker] | None:
        """Of the next tasks of the lane the first that this worker may have, or whose own worker has room now."""
        passed: list[Task] = []
        for task in lane.first(LOOK_AHEAD):
            home = self.of(task)
            if home is None or home is worker or self._patience.get(task.id, now + 1.0) <= now:
                chosen = (task, worker)
            elif home.polls and has_room(lane, home):
                chosen = (task, home)
            else:
                passed.append(task)
                continue
            self._wait(passed, now)
            return chosen
        self._wait(passed, now)
        return None

    def _wait(self, passed: Iterable[Task], now: float) -> None:
        for task in passed:
            self._patience.setdefault(task.id, now + self._wait_s)
        if len(self._patience) > MAX_HOMES:
            self._patience = {task_id: until for task_id, until in self._patience.items() if until > now}

    def awaited(self, task: Task) -> tuple[str, float] | None:
        """The worker that a task was passed over for, and until when; None where it waits for none."""
        home, until = self.of(task), self._patience.get(task.id)
        return None if home is None or until is None else (home.name, until)

    # ---- lanes that wait

    def hold(self, lane: "Lane", now: float) -> None:
        """Nobody who asks may have any of the next tasks of the lane."""
        until = min(self._patience.get(task.id, now) for task in lane.first(LOOK_AHEAD))
        self._until[lane] = (until, lane.best)
        lane.park(self, now)

    def park(self, lane: "Lane") -> None:
        """Another one is in front now: anybody may be asked again."""
        held = self._until.get(lane)
        if held is None or held[1] is not lane.best:
            self._until.pop(lane, None)
            lane.unpark()

    def let_go(self, now: float) -> None:
        """Lanes whose time is over."""
        for lane, (until, _) in list(self._until.items()):
            if until <= now or lane.shut is not self:
                self._unpark(lane)

    def let_go_home(self, has_room: HasRoom) -> None:
        """Lanes for which somebody has room now."""
        for lane in list(self._until):
            if any(self._is_awaited(lane, task, has_room) for task in lane.first(LOOK_AHEAD)):
                self._unpark(lane)

    def _unpark(self, lane: "Lane") -> None:
        del self._until[lane]
        if lane.shut is self:
            lane.unpark()

    def _is_awaited(self, lane: "Lane", task: Task, has_room: HasRoom) -> bool:
        home = self.of(task)
        return home is None or (bool(home.polls) and has_room(lane, home))

    def first_parked(self) -> "list[Lane]":
        return []

    def next_change(self) -> float | None:
        return min((until for until, _ in self._until.values()), default=None)

    def __len__(self) -> int:
        return len(self._until)
