"""The table of tasks as a dict, with the guards of the real statements."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from asyncproc.core.crowd import Crowd, Place
from asyncproc.core.decision import Decision, Key, PageWanted, Writes
from asyncproc.core.events import Loaded, Page, Released
from asyncproc.core.states import DUE_LATER, State
from asyncproc.core.task import NewTask, Task, TaskId, lane_key
from asyncproc.core.unique import Slot
from asyncproc.errors import EpochLost
from simulation.family import Edges, together
from simulation.ticks import Ticks

NO_LIMIT: Final = 1 << 40
_ELSEWHERE: Final = frozenset({State.RUNNING, State.BLOCKED})


@dataclass(slots=True)
class Committed:
    """What became of a batch, as the storage tells it."""

    refused: list[TaskId]
    rejected: list[TaskId]
    payloads: dict[TaskId, bytes] = field(default_factory=dict)
    checkpoints: dict[TaskId, bytes] = field(default_factory=dict)
    released: Released | None = None

    def unwritten(self, decision: Decision) -> list[TaskId]:
        """What the core must be told of: a row that went before its payload was read is refused like any other."""
        unread = [task_id for task_id in decision.payloads if task_id not in self.payloads]
        unread += [task_id for task_id in decision.checkpoints if task_id not in self.checkpoints]
        return [*self.refused, *self.rejected, *unread]


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
    requests: dict[TaskId, NewTask] = field(default_factory=dict)
    """Tasks that were asked for in transactions of somebody else's."""
    checkpoints: dict[TaskId, bytes] = field(default_factory=dict)
    noted: dict[TaskId, tuple[int, int]] = field(default_factory=dict)
    """Of each task that noted something, lease and number of the note that counts."""
    keys: dict[str, tuple[TaskId, ...]] = field(default_factory=dict)
    """Idempotency keys that are used up, and the tasks they are answered with."""
    levels: dict[str, tuple[float, float]] = field(default_factory=dict)
    ticks: Ticks = field(default_factory=Ticks)
    edges: Edges = field(default_factory=Edges)
    ended_as: defaultdict[TaskId, set[State]] = field(default_factory=lambda: defaultdict(set))
    """Of each task the final states that it reached."""

    def take_over(self) -> int:
        """Begin a reign and end all others."""
        self.epoch += 1
        return self.epoch

    def prove(self, epoch: int) -> None:
        """The fence. Raises `EpochLost` where another one reigns."""
        if epoch != self.epoch:
            raise EpochLost(epoch)

    def commit(self, writes: Writes, epoch: int, replay: bool, now: float) -> Committed:
        """The transaction of a cycle, and what is read back where a row was not as expected."""
        self.prove(epoch)
        unfit = {task.id for task in writes.inserts if task.id in self.unfit}
        if not unfit:
            refused, released = self.apply(writes, now, replay)
            return Committed(refused, [], released=released)
        groups = [set(used[4]) for used in writes.keys] + list(together(writes))
        for _ in groups:
            unfit.update(*(group for group in groups if not unfit.isdisjoint(group)))
        fit = replace(
            writes,
            keys=[used for used in writes.keys if unfit.isdisjoint(used[4])],
            requests=[row for row in writes.requests if row[0] not in unfit],
            inserts=[task for task in writes.inserts if task.id not in unfit],
            claims=[claim for claim in writes.claims if claim[0] not in unfit],
            depends=[depend for depend in writes.depends if depend[0] not in unfit],
        )
        refused, released = self.apply(fit, now, replay=True)
        return Committed(refused, sorted(unfit), released=released)

    def apply(self, writes: Writes, now: float, replay: bool = False) -> tuple[list[TaskId], Released | None]:
        """One transaction; returns the ids whose start or revival the table does not hold afterwards, and whom it
        released.

        Only a replay asks whether a new row is among the finished ones, as in the real statements.
        """
        self._note(writes)
        self._end(writes)
        self._stop(writes)
        self._put_back(writes)
        for key, _, _, _, ids in writes.keys:
            self.use(key, ids)
        for (task_id,) in writes.requests:
            self.take(task_id)
        for task in writes.inserts:
            if task.id not in self.live and not (replay and task.id in self.done):
                # What holds it up is of the memory it came from: no row has that.
                self.live[task.id] = replace(task, draws=())
                self.noted.pop(task.id, None)
        self.ticks.apply(writes)
        self.levels.update((name, (level, at)) for name, level, at in writes.levels)
        for task_id, lease, attempt, rank, worker in writes.claims:
            row = self.live.get(task_id)
            if row is not None and row.lease < lease and row.state in {State.QUEUED, *DUE_LATER}:
                row.state, row.lease, row.attempt, row.rank, row.worker = State.RUNNING, lease, attempt, rank, worker
        self._cancel(writes.overflown)
        released = self.edges.settle(self, writes, now, replay)
        return self._refused(writes), released

    def _note(self, writes: Writes) -> None:
        for task_id, lease, number, _, checkpoint, _ in writes.notes:
            row = self._runs(task_id, lease)
            if row is None or checkpoint is None or not self.is_newer(task_id, (lease, number)):
                continue
            self.noted[task_id] = (lease, number)
            self.checkpoints[task_id] = checkpoint
            row.checkpoint_bytes = len(checkpoint)

    def is_newer(self, task_id: TaskId, noted: tuple[int, int]) -> bool:
        return noted > self.noted.get(task_id, (0, 0))

    def use(self, key: str, ids: list[TaskId]) -> None:
        self.keys.setdefault(key, tuple(ids))

    def take(self, task_id: TaskId) -> None:
        self.requests.pop(task_id, None)

    def _end(self, writes: Writes) -> None:
        for task_id, lease, result in writes.succeeded:
            if self._runs(task_id, lease):
                self.finish(task_id, State.SUCCEEDED, result)
        for task_id, lease, _, record in writes.failed:
            if self._runs(task_id, lease):
                self.finish(task_id, State.FAILED, record)
        self._cancel(writes.cancelled)

    def _cancel(self, rows: Iterable[tuple[TaskId, int, str]]) -> None:
        for task_id, lease, reason in rows:
            if (row := self.live.get(task_id)) is not None and row.lease == lease:
                self.finish(task_id, State.CANCELLED, reason.encode())

    def _stop(self, writes: Writes) -> None:
        for task_id, lease, _, record in writes.overdue:
            row = self.live.get(task_id)
            if row is not None and row.lease == lease and row.state in {State.QUEUED, State.BLOCKED, *DUE_LATER}:
                self.finish(task_id, State.FAILED, record)
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
        self._replace(writes)
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

    def _replace(self, writes: Writes) -> None:
        for task_id, lease, *was, state, ready_at, rank, new in writes.replaced:
            row = self.live.get(task_id)
            if row is not None and row.lease == lease and _figures(row) == tuple(was):
                row.state, row.ready_at, row.attempt, row.losses, row.worker = state, ready_at, 0, 0, ""
                row.rank = row.rank if rank is None else rank
                row.payload, row.options, row.terms = new[1], new[2], new[4]

    def _runs(self, task_id: TaskId, lease: int) -> Task | None:
        row = self.live.get(task_id)
        return row if row is not None and row.lease == lease and row.state is State.RUNNING else None

    def finish(self, task_id: TaskId, state: State, body: bytes) -> None:
        row = self.done[task_id] = self.live.pop(task_id)
        row.state = state
        self.bodies[task_id] = body
        self.ends[task_id] += 1
        self.ended_as[task_id].add(state)

    def _refused(self, writes: Writes) -> list[TaskId]:
        started = [(claim[0], claim[1]) for claim in writes.claims]
        started.extend((task.id, task.lease) for task in writes.inserts if task.state is State.RUNNING)
        refused = [task_id for task_id, lease in started if self._runs(task_id, lease) is None]
        over = {row[0] for row in writes.overflown}
        new = (task for task in writes.inserts if task.state not in _ELSEWHERE and task.id not in over)
        refused += [task.id for task in new if not self._waits(task)]
        refused += [row[0] for row in writes.revived if row[0] not in self.live]
        refused += [row[0] for row in (*writes.cancelled, *writes.overflown) if not self._is_cancelled(row[0])]
        refused += [row[0] for row in writes.changed if not self._is_changed(row[0], row[7:10])]
        contents = [(row[0], row[-1][2], row[7]) for row in writes.replaced]
        return refused + [
            task_id
            for task_id, options, ready_at in contents
            if not self._is_changed(task_id, (options.priority, options.queue, ready_at))
        ]

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

    def holding(self, slot: Slot) -> list[Task]:
        """Those with the key that have not ended, rather one that waits than one that runs."""
        rows = [row for row in self.live.values() if slot[1] and _slot(row) == slot]
        return [self.read(row) for row in sorted(rows, key=lambda row: (row.state is State.RUNNING, row.id))]

    def whose_keys_are_free(self, rows: Iterable[Task]) -> list[Task]:
        """All of them but the failed ones beside which others have their keys."""
        taken = {_slot(row) for row in self.live.values() if row.terms.unique_key}
        free: list[Task] = []
        for row in rows:
            if row.state is not State.FAILED or _slot(row) not in taken:
                free.append(row)
            if row.terms.unique_key:
                taken.add(_slot(row))
        return free

    def copy_of_failed(self, task_id: TaskId) -> Task | None:
        row = self.done.get(task_id)
        return self.read(row) if row is not None and row.state is State.FAILED else None

    def copies(self, ids: Iterable[TaskId]) -> list[Task]:
        """Of these the rows that wait or have failed."""
        rows = (self.live.get(task_id) or self.done.get(task_id) for task_id in ids)
        return [
            self.read(row) for row in rows if row is not None and row.state not in {State.SUCCEEDED, State.CANCELLED}
        ]

    def payloads(self, ids: Iterable[TaskId]) -> dict[TaskId, bytes]:
        return {task_id: self.live[task_id].payload for task_id in ids if task_id in self.live}

    def left(self, ids: Iterable[TaskId]) -> dict[TaskId, bytes]:
        """Checkpoints of these."""
        return {task_id: self.checkpoints[task_id] for task_id in ids if task_id in self.live}

    def read(self, row: Task) -> Task:
        if len(row.payload) > self.large_bytes:
            return replace(row, left_out=len(row.payload), payload=b"")
        return replace(row)

    def count(self, crowds: Mapping[Place, Crowd]) -> None:
        """Who waits there, where that is not known."""
        for (queue, key), crowd in crowds.items():
            if crowd.waiting is None:
                there = [row for row in self.waiting(queue) if not key or row.options.concurrency_key == key]
                crowd.waiting = len(there)
                oldest = sorted((row.id, row.lease, row.options.concurrency_key) for row in there)
                crowd.oldest.extend(oldest[: crowd.to_read])

    def waiting(self, queue: str) -> list[Task]:
        return [row for row in self.live.values() if row.queue == queue and row.state in {State.QUEUED, *DUE_LATER}]

    def load(self) -> Loaded:
        ready = {
            (row.queue, lane_key(row.options))
            for row in self.live.values()
            if row.state in {State.QUEUED, State.RUNNING}
        }
        running = [self.read(row) for row in self.live.values() if row.state is State.RUNNING]
        positions, waiting = self.ticks.found(self.live)
        return Loaded(running, sorted(ready), dict(self.levels), self.edges.load(self), positions, waiting)

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
        page, size = [self.read(row) for row in rows[: wanted.limit]], 0
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
        done = {task_id: repr(row) for task_id, row in self.done.items()}
        edges = repr({child: sorted(parents) for child, parents in self.edges.open.items()})
        return live, done, dict(self.keys), edges, [*self.requests], dict(self.checkpoints), repr(self.ticks)


def _figures(task: Task) -> tuple[object, ...]:
    return (task.state, task.options.priority, task.queue, task.ready_at)


def _slot(task: Task) -> Slot:
    return (task.options.type, task.terms.unique_key)


def ready_key(task: Task) -> Key:
    return (task.rank, task.id)


def due_key(task: Task) -> Key:
    return (task.ready_at, task.id)
