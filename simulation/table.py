"""The table of tasks as a dict, with the guards of the real statements."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from asyncproc.core.decision import Key, PageWanted, Writes
from asyncproc.core.events import Loaded, Page
from asyncproc.core.states import DUE_LATER, State
from asyncproc.core.task import Task, TaskId, lane_key
from asyncproc.errors import EpochLost
from simulation.ticks import Ticks

NO_LIMIT: Final = 1 << 40


@dataclass(slots=True)
class Committed:
    """What became of a batch, as the storage tells it."""

    refused: list[TaskId]
    rejected: list[TaskId]
    payloads: dict[TaskId, bytes] = field(default_factory=dict)

    def unwritten(self, wanted: Iterable[TaskId]) -> list[TaskId]:
        """What the core must be told of: a row that went before its payload was read is refused like any other."""
        return [*self.refused, *self.rejected, *(task_id for task_id in wanted if task_id not in self.payloads)]


@dataclass
class Table:
    page_bytes: int
    large_bytes: int
    """A payload of more does not come with its row."""
    epoch: int = 0
    unfit: set[TaskId] = field(default_factory=set)
    """Tasks of which Postgres keeps no row: a value of theirs is none of its own."""
    live: dict[TaskId, Task] = field(default_factory=dict)
    done: dict[TaskId, Task] = field(default_factory=dict)
    bodies: dict[TaskId, bytes] = field(default_factory=dict)
    """Result or error record of what is done."""
    ends: Counter[TaskId] = field(default_factory=Counter)
    """How often each task reached a final state."""
    revivals: Counter[TaskId] = field(default_factory=Counter)
    keys: dict[str, tuple[TaskId, ...]] = field(default_factory=dict)
    levels: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Idempotency keys that are used up, and the tasks they are answered with."""
    ticks: Ticks = field(default_factory=Ticks)

    def take_over(self) -> int:
        """Begin a reign and end all others."""
        self.epoch += 1
        return self.epoch

    def prove(self, epoch: int) -> None:
        """The fence. Raises `EpochLost` where another one reigns."""
        if epoch != self.epoch:
            raise EpochLost(epoch)

    def commit(self, writes: Writes, epoch: int, replay: bool) -> Committed:
        """The transaction of a cycle, and what is read back where a row was not as expected."""
        self.prove(epoch)
        unfit = {task.id for task in writes.inserts if task.id in self.unfit}
        if not unfit:
            return Committed(self.apply(writes, replay), [])
        for used in writes.keys:
            if not unfit.isdisjoint(used[4]):
                unfit.update(used[4])
        fit = replace(
            writes,
            keys=[used for used in writes.keys if unfit.isdisjoint(used[4])],
            inserts=[task for task in writes.inserts if task.id not in unfit],
            claims=[claim for claim in writes.claims if claim[0] not in unfit],
        )
        return Committed(self.apply(fit, replay=True), sorted(unfit))

    def apply(self, writes: Writes, replay: bool = False) -> list[TaskId]:
        """One transaction; returns the ids whose start or revival the table does not hold afterwards.

        Only a replay asks whether a new row is among the finished ones, as in the real statements.
        """
        self._end(writes)
        self._stop(writes)
        self._put_back(writes)
        for key, _, _, _, ids in writes.keys:
            self.use(key, ids)
        for task in writes.inserts:
            if task.id not in self.live and not (replay and task.id in self.done):
                # What holds it up is of the memory it came from: no row has that.
                self.live[task.id] = replace(task, draws=())
        self.ticks.apply(writes)
        self.levels.update((name, (level, at)) for name, level, at in writes.levels)
        for task_id, lease, attempt, rank, worker in writes.claims:
            row = self.live.get(task_id)
            if row is not None and row.lease < lease and row.state in {State.QUEUED, *DUE_LATER}:
                row.state, row.lease, row.attempt, row.rank, row.worker = State.RUNNING, lease, attempt, rank, worker
        return self._refused(writes)

    def use(self, key: str, ids: list[TaskId]) -> None:
        self.keys.setdefault(key, tuple(ids))

    def _end(self, writes: Writes) -> None:
        for task_id, lease, result in writes.succeeded:
            if self._runs(task_id, lease):
                self._finish(task_id, State.SUCCEEDED, result)
        for task_id, lease, _, record in writes.failed:
            if self._runs(task_id, lease):
                self._finish(task_id, State.FAILED, record)
        for task_id, lease, reason in writes.cancelled:
            if (row := self.live.get(task_id)) is not None and row.lease == lease:
                self._finish(task_id, State.CANCELLED, reason.encode())

    def _stop(self, writes: Writes) -> None:
        for task_id, lease, _, record in writes.overdue:
            row = self.live.get(task_id)
            if row is not None and row.lease == lease and row.state in {State.QUEUED, *DUE_LATER}:
                self._finish(task_id, State.FAILED, record)
        for task_id, lease, ready_at in writes.snoozed:
            if row := self._runs(task_id, lease):
                row.state, row.ready_at, row.losses, row.worker = State.SCHEDULED, ready_at, 0, ""
                row.attempt -= 1
        for task_id, lease, reason in writes.stopping:
            if row := self._runs(task_id, lease):
                row.stop_reason = reason

    def _put_back(self, writes: Writes) -> None:
        for task_id, lease, ready_at, losses, _, _ in writes.retried:
            if row := self._runs(task_id, lease):
                row.state, row.ready_at, row.losses = State.RETRYING, ready_at, losses
        for task_id, lease, losses in writes.requeued:
            if row := self._runs(task_id, lease):
                row.state, row.losses, row.worker = State.QUEUED, losses, ""
                row.attempt -= 1
        for task_id, ready_at, rank in writes.revived:
            if task_id in self.done and self.done[task_id].state is State.FAILED:
                row = self.live[task_id] = self.done.pop(task_id)
                row.state, row.ready_at, row.rank = State.QUEUED, ready_at, rank
                row.attempt, row.losses, row.worker = 0, 0, ""
                self.revivals[task_id] += 1
        self._change(writes)
        for task_id, rank in writes.came_due:
            row = self.live.get(task_id)
            if row is not None and row.state in DUE_LATER:
                row.state, row.rank = State.QUEUED, rank

    def _change(self, writes: Writes) -> None:
        for task_id, lease, *was, state, priority, queue, ready_at, new_rank in writes.changed:
            row = self.live.get(task_id)
            if row is not None and row.lease == lease and _figures(row) == tuple(was):
                row.state, row.ready_at = state, ready_at
                row.options = row.options._replace(priority=priority, queue=queue)
                row.rank = row.rank if new_rank is None else new_rank

    def _runs(self, task_id: TaskId, lease: int) -> Task | None:
        row = self.live.get(task_id)
        return row if row is not None and row.lease == lease and row.state is State.RUNNING else None

    def _finish(self, task_id: TaskId, state: State, body: bytes) -> None:
        row = self.done[task_id] = self.live.pop(task_id)
        row.state = state
        self.bodies[task_id] = body
        self.ends[task_id] += 1

    def _refused(self, writes: Writes) -> list[TaskId]:
        started = [(claim[0], claim[1]) for claim in writes.claims]
        started.extend((task.id, task.lease) for task in writes.inserts if task.state is State.RUNNING)
        refused = [task_id for task_id, lease in started if self._runs(task_id, lease) is None]
        refused += [task.id for task in writes.inserts if task.state is not State.RUNNING and not self._waits(task)]
        refused += [row[0] for row in writes.revived if row[0] not in self.live]
        refused += [row[0] for row in writes.cancelled if not self._is_cancelled(row[0])]
        return refused + [row[0] for row in writes.changed if not self._is_changed(row[0], row[7:10])]

    def _is_cancelled(self, task_id: TaskId) -> bool:
        row = self.done.get(task_id)
        return row is not None and row.state is State.CANCELLED

    def _is_changed(self, task_id: TaskId, figures: tuple[object, ...]) -> bool:
        """By what a claim in the same commit leaves as it is."""
        row = self.live.get(task_id)
        return row is not None and _figures(row)[1:] == figures

    def _waits(self, task: Task) -> bool:
        row = self.live.get(task.id)
        return row is not None and row.lease == task.lease and row.state is task.state

    def copy_of_failed(self, task_id: TaskId) -> Task | None:
        row = self.done.get(task_id)
        return self._read(row) if row is not None and row.state is State.FAILED else None

    def copies(self, ids: Iterable[TaskId]) -> list[Task]:
        """Of these the rows that wait or have failed."""
        rows = (self.live.get(task_id) or self.done.get(task_id) for task_id in ids)
        return [
            self._read(row) for row in rows if row is not None and row.state not in {State.SUCCEEDED, State.CANCELLED}
        ]

    def payloads(self, ids: Iterable[TaskId]) -> dict[TaskId, bytes]:
        return {task_id: self.live[task_id].payload for task_id in ids if task_id in self.live}

    def _read(self, row: Task) -> Task:
        if len(row.payload) > self.large_bytes:
            return replace(row, left_out=len(row.payload), payload=b"")
        return replace(row)

    def load(self) -> Loaded:
        ready = {
            (row.queue, lane_key(row.options))
            for row in self.live.values()
            if row.state in {State.QUEUED, State.RUNNING}
        }
        running = [self._read(row) for row in self.live.values() if row.state is State.RUNNING]
        return Loaded(running, sorted(ready), dict(self.levels), *self.ticks.found(self.live))

    def page(self, wanted: PageWanted) -> Page:
        key: Callable[[Task], Key] = due_key if wanted.queue is None else ready_key
        states = DUE_LATER if wanted.queue is None else {State.QUEUED}
        rows = sorted(
            (
                row
                for row in self.live.values()
                if row.state in states
                and (wanted.queue is None or (wanted.queue, wanted.lane) == (row.queue, lane_key(row.options)))
                and key(row) > wanted.after
            ),
            key=key,
        )
        page, size = [self._read(row) for row in rows[: wanted.limit]], 0
        for index, row in enumerate(page):
            if size >= self.page_bytes:
                del page[index:]
                break
            size += len(row.payload)
        complete = len(page) < wanted.limit and size < self.page_bytes
        return Page(wanted.queue, wanted.lane, page, key(page[-1]) if page else None, complete)

    def snapshot(self) -> tuple[object, ...]:
        """All rows as text, to compare by value."""
        live = {task_id: repr(row) for task_id, row in self.live.items()}
        return live, {task_id: repr(row) for task_id, row in self.done.items()}, dict(self.keys), repr(self.ticks)


def _figures(task: Task) -> tuple[object, ...]:
    return (task.state, task.options.priority, task.queue, task.ready_at)


def ready_key(task: Task) -> Key:
    return (task.rank, task.id)


def due_key(task: Task) -> Key:
    return (task.ready_at, task.id)
