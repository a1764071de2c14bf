"""One turn of the QueueActor: what happened goes in, what to write and to answer comes out.

`step` may change the `Core` it is given and nothing else; equal inputs give equal decisions. It assumes that its writes
will be committed: a commit whose fate is unknown is replayed until it is known, and what the table refused comes back
as an event.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from asyncproc.core.attendance import Attendance
from asyncproc.core.backlog import Backlog
from asyncproc.core.cancel import tell_workers
from asyncproc.core.commands import steer
from asyncproc.core.counters import Counters
from asyncproc.core.dangers import Dangers, runs_alone
from asyncproc.core.decision import Decision, EnqueueReply
from asyncproc.core.dependents import Dependents
from asyncproc.core.dispatch import Dispatcher
from asyncproc.core.endings import unsuccessful
from asyncproc.core.events import (
    SUCCEEDED,
    Enqueued,
    Event,
    Lease,
    Loaded,
    Note,
    Occupied,
    Outcome,
    Page,
    Polled,
    Refused,
    Registered,
    Released,
    SchedulesChanged,
    TicksAsked,
    WorkerLost,
)
from asyncproc.core.expiry import expire, limits_of
from asyncproc.core.overflow import Bounds
from asyncproc.core.rank import micros_until
from asyncproc.core.recall import look_again_at, recall
from asyncproc.core.replace import due_at, replace
from asyncproc.core.schedules import Schedules
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State, Trigger, after
from asyncproc.core.task import NO_TERMS, NewTask, Task, TaskId
from asyncproc.core.workers import RunTimes, Worker

_SUCCEEDED: Final = after(State.RUNNING, Trigger.SUCCEED)
MAX_DUE_A_STEP: Final = 5_000
"""A million tasks due at one instant become ready over many cycles, so that each stays short."""


class Core:
    """Everything the QueueActor knows. It has one owner, and `step` alone changes what follows from events."""

    def __init__(self, settings: CoreSettings, epoch: int = 0) -> None:
        self.settings = settings
        self.counters = Counters()
        self.backlog = Backlog(settings)
        self.tasks = self.backlog.tasks
        self.attendance = Attendance(self, epoch)
        self.workers = self.attendance.workers
        self.run_times = RunTimes(unknown_s=settings.prefetch_s)
        self.dangers = Dangers()
        self.dependents = Dependents()
        self.schedules = Schedules(settings.tick_grace_s)
        self.overflow = Bounds()
        self.draining = False
        self.now = 0.0
        self.decision = Decision()
        self.fresh: set[TaskId] = set()
        self.altered: set[TaskId] = set()
        """Tasks that were changed, cancelled or revived on demand in this step."""
        self.stops: dict[str, list[tuple[TaskId, int, float]]] = {}
        """Running tasks that are to be asked to end, by worker."""
        self.noted: dict[TaskId, Note] = {}
        """The newest note of each task that sent some in this step."""
        self._large: list[Task] = []
        self._dispatcher = Dispatcher(
            self.run_times, settings, self.backlog, self._claim, lambda task: expire(self, task)
        )

    def step(self, events: Sequence[Event], now: float) -> Decision:
        """Decide what follows from `events`, in their order. `now` is in seconds since 1970 and never goes back."""
        self.attendance.begin(now)
        self.now = now
        self.decision = Decision()
        self.fresh.clear()
        self.altered.clear()
        for task in self._large:
            task.payload = b""  # it is committed by now
        self._large.clear()
        self.backlog.begin(now)
        self.schedules.begin(now, self.decision.writes)
        self._dispatcher.begin()
        # A page is older than all that happened since: taken later, it would move the end of its window past tasks
        # that were left to the disk in the meantime.
        for event in events:
            if isinstance(event, Page):
                self.backlog.take_page(event)
        # And what was released is in its place before anybody asks for it.
        for event in events:
            if isinstance(event, Released):
                self.dependents.take(event, self.backlog)
            elif isinstance(event, Occupied):
                self.overflow.take(event)
        for event in events:
            self._take(event)
        self.schedules.ended(self.decision.writes)
        self._enqueue(self.schedules.come_due())
        came_due = self.backlog.come_due(now, MAX_DUE_A_STEP)
        self.attendance.ring_alarms()
        if not self.draining:
            self._dispatch()
        self.attendance.answer_reports()
        tell_workers(self)
        # What came due and was claimed in this same step is written once, as running.
        waiting = (task for task in came_due if task.state is State.QUEUED)
        self.decision.writes.came_due.extend((task.id, task.rank) for task in waiting)
        self.decision.pages.extend(self.backlog.shed())
        self.decision.writes.levels.extend(self.backlog.gates.spent())
        if self.noted:
            self.decision.writes.notes.extend(self.noted.values())
            self.noted.clear()
        self.dependents.close(self.decision.writes)
        self.schedules.finish()
        self.overflow.close(self.decision.writes)
        self.decision.wake_at = self._next_wake()
        return self.decision

    def answered(self, at: float) -> None:
        """The replies of the last step went out only now: until then its workers had nothing to make progress with."""
        for worker in (*self._dispatcher.granted, *(worker for worker, _ in self.attendance.reported)):
            worker.progress_at = max(worker.progress_at, at)

    def _take(self, event: Event) -> None:
        match event:
            case Polled():
                self.attendance.poll(event)
            case Enqueued():
                self._enqueued(event)
            case Registered():
                self.attendance.register(event)
            case WorkerLost():
                self.attendance.lose(event)
            case Refused():
                self._refused(event.ids)
            case Loaded():
                self._loaded(event)
            case SchedulesChanged() | TicksAsked():
                self.decision.replies.append(self.schedules.obey(event))
            case Page() | Released() | Occupied():
                pass
            case _:
                steer(self, event)

    # ---- tasks come in

    def _enqueued(self, event: Enqueued) -> None:
        reply = EnqueueReply(event.ticket)
        self.decision.replies.append(reply)
        tasks, keys = event.tasks, event.keys
        if self.overflow and not event.requested:
            tasks, keys, reply.full = self.overflow.let_in(self, event)
            if reply.full and event.whole:
                return
        if event.replaced:
            if not replace(self, event.replaced):
                reply.stale = True
                return
            reply.replaced = [task.id for task, _ in event.replaced]
        self._enqueue(tasks)
        self.decision.writes.keys.extend(keys)
        if event.requested:
            self.decision.writes.requests.extend((task[0],) for task in event.tasks)

    def leave_out(self, task: Task) -> None:
        """A large payload is held no longer than until it is committed."""
        task.left_out = len(task.payload)
        self._large.append(task)

    def _enqueue(self, tasks: Iterable[NewTask]) -> None:
        now = micros_until(self.now)
        inserts = self.decision.writes.inserts
        for new in tasks:
            task_id, payload, options, delay_s, given = new
            if task_id in self.tasks or task_id in self.fresh:
                continue
            ready_at, terms = due_at(new, self.now) if delay_s or given != NO_TERMS else (now, NO_TERMS)
            state = State.SCHEDULED if ready_at > self.now else State.QUEUED
            task = Task(task_id, payload, options, state, ready_at, now, terms=terms)
            if len(payload) > self.settings.large_bytes:
                self.leave_out(task)
            inserts.append(task)
            self.fresh.add(task_id)
            self.counters.enqueued += 1
            if given.parents is not None:
                self.dependents.block(task, self.decision.writes)
            elif self.overflow and not self.overflow.admit(self, task):
                continue
            elif state is State.QUEUED:
                self.backlog.make_ready(task)
            else:
                self.backlog.defer(task)

    def _loaded(self, event: Loaded) -> None:
        for queue, key in event.lanes:
            self.backlog.open(queue, key)
        self.backlog.gates.refill(event.levels)
        self.dependents.owe(event.owed)
        self.schedules.found(event.positions, event.waiting)
        for task in event.running:
            self.tasks[task.id] = task
            worker = self.workers.get(task.worker)
            if worker is None:
                worker = self.attendance.meet(
                    task.worker, self.backlog.pool_of(task.queue, task.shape).name, concurrency=0
                )
            worker.hold(task.id, self.run_times.estimate(task.options.type), alone=runs_alone(task.losses))
            self.backlog.count(task)

    # ---- attempts end

    def ended(self, worker: Worker, outcome: Outcome) -> None:
        task_id, lease, ending, body, error, seconds, spread, children = outcome
        task = self.tasks.get(task_id)
        # The number alone is not enough: a doubled report carries the right one.
        if task is None or task.lease != lease or task.state is not State.RUNNING or task.worker != worker.name:
            self.counters.stale_outcomes += 1
            return
        worker.release(task_id)
        if task.draws:
            self.backlog.stopped(task)
        self.run_times.observe(task.options.type, seconds)
        if ending != SUCCEEDED:
            unsuccessful(self, task, ending, error, body, spread)
            return
        task.state = _SUCCEEDED
        del self.tasks[task_id]
        self.counters.succeeded += 1
        self.decision.writes.succeeded.append((task_id, lease, body))
        if children:
            self._enqueue(children)

    # ---- what is decided at the end of a step

    def _dispatch(self) -> None:
        for pool in self.backlog.pools.values():
            replies = self._dispatcher.dispatch(pool, self.now)
            replies += recall(pool, self.tasks, self.settings, self.now)
            self.decision.replies.extend(replies)
        self.attendance.expect(self._dispatcher.granted)

    def _claim(self, task: Task, worker: Worker, estimate_s: float) -> Lease:
        task.state = after(task.state, Trigger.CLAIM)
        task.lease += 1
        task.attempt += 1
        task.worker = worker.name
        task.started_at = self.now
        worker.hold(task.id, estimate_s, alone=task.losses > 0 and runs_alone(task.losses))
        self.counters.claimed += 1
        if task.left_out and not task.payload:
            self.decision.payloads.append(task.id)
        if task.checkpoint_bytes:
            self.decision.checkpoints.append(task.id)
        if task.id not in self.fresh:
            self.decision.writes.claims.append((task.id, task.lease, task.attempt, task.rank, worker.name))
        options = task.options
        if options.affinity_key:
            self.backlog.pool(worker.pool).homes.ran(task, worker.name)
        confined = task.losses > 0
        if self.dangers.until and not confined:
            confined = self.dangers.has(options.type, self.now)
        if worker.batching and options.type in worker.batching:
            worker.put_together(task.id, options.type, self.now, confined)
        return (
            task.id,
            task.lease,
            task.attempt,
            options.type,
            options.queue,
            task.payload,
            task.rank,
            limits_of(task, self.now) if task.terms.deadline else options.limits,
            confined,
        )

    def _next_wake(self) -> float | None:
        if self._dispatcher.is_cut or self.backlog.is_behind():
            return self.now
        instants = [
            self.backlog.next_due(),
            self.backlog.next_change(),
            self.attendance.next_alarm(),
            self.schedules.next_at(),
        ]
        if not self.draining:
            instants += [look_again_at(pool, self.settings, self.now) for pool in self.backlog.pools.values()]
        return min((at for at in instants if at is not None), default=None)

    def _refused(self, ids: list[TaskId]) -> None:
        """The table knows better: forget these tasks, wherever they are, and read them again."""
        self.counters.refused_writes += len(ids)
        self.schedules.gone(ids)
        for task in self.backlog.forget(ids):
            if (worker := self.workers.get(task.worker)) is not None:
                worker.release(task.id)
                self.backlog.pool(worker.pool).place(worker)
