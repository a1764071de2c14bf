"""One turn of the QueueActor: what happened goes in, what to write and to answer comes out.

`step` may change the `Core` it is given and nothing else; equal inputs give equal decisions. It assumes that its writes
will be committed: a commit whose fate is unknown is replayed until it is known, and what the table refused comes back
as an event.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from asyncproc.core.alarms import Alarms
from asyncproc.core.backlog import Backlog
from asyncproc.core.cancel import remind, tell_workers
from asyncproc.core.commands import steer
from asyncproc.core.counters import Counters
from asyncproc.core.dangers import Dangers, runs_alone
from asyncproc.core.decision import Decision, EnqueueReply, PollReply, RegisterReply
from asyncproc.core.dependents import Dependents
from asyncproc.core.dispatch import Dispatcher
from asyncproc.core.endings import died, lost, unsuccessful
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
from asyncproc.core.notes import take_notes
from asyncproc.core.overflow import Bounds
from asyncproc.core.rank import micros_until
from asyncproc.core.recall import look_again_at, recall
from asyncproc.core.replace import due_at, replace
from asyncproc.core.schedules import Schedules
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State, Trigger, after
from asyncproc.core.task import NO_TERMS, NewTask, Task, TaskId
from asyncproc.core.workers import Poll, RunTimes, Worker

MAX_DUE_A_STEP: Final = 5_000
"""A million tasks due at one instant become ready over many cycles, so that each stays short."""


class Core:
    """Everything the QueueActor knows. It has one owner, and `step` alone changes what follows from events."""

    def __init__(self, settings: CoreSettings, epoch: int = 0) -> None:
        """`epoch` keeps the sessions of one reign apart from those of the reigns before."""
        self.settings = settings
        self.counters = Counters()
        self.backlog = Backlog(settings)
        self.tasks = self.backlog.tasks
        self.workers: dict[str, Worker] = {}
        self.run_times = RunTimes(unknown_s=settings.prefetch_s)
        self.dangers = Dangers()
        self.dependents = Dependents()
        self.schedules = Schedules(settings.tick_grace_s)
        self.overflow = Bounds()
        self.draining = False
        self._sessions = epoch << 32
        self._alarms = Alarms()
        self.now = 0.0
        self.decision = Decision()
        self.fresh: set[TaskId] = set()
        self.altered: set[TaskId] = set()
        """Tasks that were changed, cancelled or revived on demand in this step."""
        self.stops: dict[str, list[tuple[TaskId, int, float]]] = {}
        """Running tasks that are to be asked to end, by worker."""
        self.noted: dict[TaskId, Note] = {}
        """The newest note of each task that sent some in this step."""
        self._reported: list[tuple[Worker, Poll]] = []
        self._large: list[Task] = []
        self._dispatcher = Dispatcher(
            self.run_times, settings, self.backlog, self._claim, lambda task: expire(self, task)
        )

    def step(self, events: Sequence[Event], now: float) -> Decision:
        """Decide what follows from `events`, in their order. `now` is in seconds since 1970 and never goes back."""
        self._excuse_absence(now)
        self.now = now
        self.decision = Decision()
        self.fresh.clear()
        self.altered.clear()
        self._reported.clear()
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
        self._ring_alarms()
        if not self.draining:
            self._dispatch()
        self._answer_reports()
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
        for worker in (*self._dispatcher.granted, *(worker for worker, _ in self._reported)):
            worker.progress_at = max(worker.progress_at, at)

    def _take(self, event: Event) -> None:
        match event:
            case Polled():
                self._polled(event)
            case Enqueued():
                self._enqueued(event)
            case Registered():
                self._registered(event)
            case WorkerLost():
                self._worker_lost(event.worker, event.cause, event.charged)
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
                worker = self._meet(task.worker, self.backlog.pool_of(task.queue, task.shape).name, concurrency=0)
            worker.hold(task.id, self.run_times.estimate(task.options.type), alone=runs_alone(task.losses))
            self.backlog.count(task)

    # ---- workers

    def _registered(self, event: Registered) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            worker = self._meet(event.worker, event.pool, event.concurrency)
        elif worker.pool != event.pool:
            self.backlog.transfer(worker, event.pool)
        self._sessions += 1
        worker.session = self._sessions
        worker.concurrency = event.concurrency
        self.backlog.knows(worker, None if event.types is None else frozenset(event.types))
        worker.heard_at = self.now
        if worker.batching != event.batching:
            worker.regroup(event.batching, lambda task_id: self.tasks[task_id].options.type)
        for poll in worker.polls:
            self.decision.replies.append(PollReply(poll.ticket, None))
        worker.polls.clear()
        # By lease and not by id alone: it may hold an old one of a task whose new one never arrived.
        adopted = {task_id for task_id, lease in event.held if self._holds(worker, task_id, lease)}
        dropped = [task_id for task_id, _ in event.held if task_id not in adopted]
        worker.missing = [task_id for task_id in worker.held if task_id not in adopted]
        remind(self, worker)
        pool = self.backlog.pool(worker.pool)
        pool.progressed(worker, self.now)
        pool.place(worker)
        # A registration that was overtaken on its way knows nothing of later leases, which may be running: only the
        # first poll of the session proves that the worker stands by it.
        self.decision.replies.append(RegisterReply(event.ticket, worker.session, dropped))

    def _give_back(self, worker: Worker) -> None:
        """What was granted to the worker and never arrived."""
        missing, worker.missing = worker.missing, []
        for task_id in missing:
            if task_id in worker.held:
                self._put_back(worker, task_id)

    def _returned(self, worker: Worker, returned: list[tuple[TaskId, int]]) -> None:
        for task_id, lease in returned:
            # A doubled or late one names a lease that is over; the worker may run the task under the next one.
            if self._holds(worker, task_id, lease):
                self._put_back(worker, task_id)
                self.counters.returned += 1

    def _put_back(self, worker: Worker, task_id: TaskId) -> None:
        """The attempt never began."""
        task = self.tasks[task_id]
        worker.release(task_id)
        self.backlog.stopped(task)
        if not task.losses:
            self.backlog.stream(task.queue, task.shape).paid += 1
        self._requeue(task)

    def _holds(self, worker: Worker, task_id: TaskId, lease: int) -> bool:
        task = self.tasks.get(task_id)
        return task_id in worker.held and task is not None and task.lease == lease

    def _polled(self, event: Polled) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or not worker.session or worker.session != event.session:
            self.counters.stale_polls += 1
            self.decision.replies.append(PollReply(event.ticket, None))
            return
        worker.heard_at = self.now
        worker.leaving = worker.leaving or event.leaving
        if event.leaving:
            self.backlog.knows(worker, None)
        pool = self.backlog.pool(worker.pool)
        self._give_back(worker)
        if event.notes:
            take_notes(self, worker, event.notes)
        for outcome in event.outcomes:
            self._ended(worker, outcome)
        self._returned(worker, event.returned)
        if event.outcomes:
            pool.progressed(worker, self.now)
        poll = Poll(event.ticket, self.now, bool(event.outcomes or event.returned or event.leaving or event.notes))
        worker.polls.append(poll)
        if poll.reported:
            self._reported.append((worker, poll))
        pool.place(worker)

    def _meet(self, name: str, pool_name: str, concurrency: int) -> Worker:
        worker = Worker(name, pool_name, concurrency, heard_at=self.now)
        self.workers[name] = worker
        self.backlog.pool(pool_name).workers[name] = worker
        self._alarms.set(worker, self.now + self.settings.poll_s)
        return worker

    def _worker_lost(self, name: str, cause: str, charged: bool) -> None:
        worker = self.workers.pop(name, None)
        if worker is None:
            return
        pool = self.backlog.pool(worker.pool)
        pool.forget(worker)
        self.backlog.knows(worker, None)
        self.decision.replies.extend(PollReply(poll.ticket, None) for poll in worker.polls)
        worker.polls.clear()
        alone = len(worker.held) == 1
        charged = charged and not worker.leaving
        self.counters.lost += len(worker.held)
        for task_id in worker.held:
            task = self.tasks[task_id]
            self.backlog.stopped(task)
            if charged and task.losses and alone and task.stop_reason is None:
                # Nobody else can have done it.
                died(self, task, cause)
                continue
            task.losses += charged
            self._requeue(task)
        self.backlog.release(pool)

    def _requeue(self, task: Task) -> None:
        lost(self, task)

    def _excuse_absence(self, now: float) -> None:
        """While a commit waits for Postgres no poll is answered: that silence is ours and not the workers'."""
        absence_s = now - self.now - self.settings.poll_s
        if absence_s > 0:
            for worker in self.workers.values():
                worker.heard_at += absence_s

    def _ring_alarms(self) -> None:
        """Answer polls that were parked long enough, and notice workers that fell silent."""
        settings = self.settings
        for worker in self._alarms.ring(self.workers, self.now):
            while worker.polls and worker.polls[0].opened_at + settings.poll_s <= self.now:
                self.decision.replies.append(PollReply(worker.polls.pop(0).ticket, []))
            if worker.polls:
                next_at = worker.polls[0].opened_at + settings.poll_s
            else:
                self.backlog.pool(worker.pool).place(worker)
                silent_at = worker.heard_at + settings.poll_s + settings.silence_s
                if silent_at <= self.now:
                    self._worker_lost(worker.name, f"silent for {self.now - worker.heard_at:.0f} s", charged=True)
                    continue
                next_at = min(silent_at, self.now + settings.poll_s)
            self._alarms.set(worker, next_at)

    # ---- attempts end

    def _ended(self, worker: Worker, outcome: Outcome) -> None:
        task_id, lease, ending, body, error, seconds, spread, children = outcome
        task = self.tasks.get(task_id)
        # The number alone is not enough: a doubled report carries the right one.
        if task is None or task.lease != lease or task.state is not State.RUNNING or task.worker != worker.name:
            self.counters.stale_outcomes += 1
            return
        worker.release(task_id)
        self.backlog.stopped(task)
        self.run_times.observe(task.options.type, seconds)
        if ending != SUCCEEDED:
            unsuccessful(self, task, ending, error, body, spread)
            return
        task.state = after(State.RUNNING, Trigger.SUCCEED)
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

    def _claim(self, task: Task, worker: Worker, estimate_s: float) -> Lease:
        task.state = after(task.state, Trigger.CLAIM)
        task.lease += 1
        task.attempt += 1
        task.worker = worker.name
        task.started_at = self.now
        worker.hold(task.id, estimate_s, alone=runs_alone(task.losses))
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
        confined = task.losses > 0 or self.dangers.has(options.type, self.now)
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

    def _answer_reports(self) -> None:
        """Whoever reported is answered now, with or without leases: the answer says that the outcomes are recorded."""
        for worker, poll in self._reported:
            if poll in worker.polls:
                worker.polls.remove(poll)
                self.decision.replies.append(PollReply(poll.ticket, []))
                self.backlog.pool(worker.pool).place(worker)

    def _next_wake(self) -> float | None:
        if self._dispatcher.is_cut or self.backlog.is_behind():
            return self.now
        instants = [self.backlog.next_due(), self.backlog.next_change(), self._alarms.next(), self.schedules.next_at()]
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
