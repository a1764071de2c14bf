"""Which workers are there: they register, ask for work, fall silent and are lost, and what they held goes back."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from asyncproc.core.alarms import Alarms
from asyncproc.core.cancel import remind
from asyncproc.core.decision import PollReply, RegisterReply
from asyncproc.core.endings import died, lost
from asyncproc.core.events import Polled, Registered, WorkerLost
from asyncproc.core.notes import take_notes
from asyncproc.core.task import Task, TaskId
from asyncproc.core.workers import Poll, Worker

if TYPE_CHECKING:
    from asyncproc.core.step import Core


class Attendance:
    """The workers of one reign."""

    def __init__(self, core: "Core", epoch: int) -> None:
        """`epoch` keeps the sessions of one reign apart from those of the reigns before."""
        self._core = core
        self.workers: dict[str, Worker] = {}
        self.reported: list[tuple[Worker, Poll]] = []
        """Who said something in this step, and is to be told that it is recorded."""
        self._sessions = epoch << 32
        self._alarms = Alarms(core.settings)

    def begin(self, now: float) -> None:
        """A step begins; the core still has the instant of the last one."""
        self.reported.clear()
        self._excuse_absence(now)

    def register(self, event: Registered) -> None:
        core = self._core
        worker = self.workers.get(event.worker)
        if worker is None:
            worker = self.meet(event.worker, event.pool, event.concurrency)
        elif worker.pool != event.pool:
            core.backlog.transfer(worker, event.pool)
        self._sessions += 1
        worker.session = self._sessions
        worker.concurrency = event.concurrency
        core.backlog.knows(worker, None if event.types is None else frozenset(event.types))
        worker.heard_at, worker.patient = core.now, event.patient
        if worker.batching != event.batching:
            worker.regroup(event.batching, lambda task_id: core.tasks[task_id].options.type)
        for poll in worker.polls:
            core.decision.replies.append(PollReply(poll.ticket, None))
        worker.polls.clear()
        self._alarms.expect(worker, core.now)
        # By lease and not by id alone: it may hold an old one of a task whose new one never arrived.
        adopted = {task_id for task_id, lease in event.held if self._holds(worker, task_id, lease)}
        dropped = [task_id for task_id, _ in event.held if task_id not in adopted]
        worker.missing = [task_id for task_id in worker.held if task_id not in adopted]
        remind(core, worker)
        pool = core.backlog.pool(worker.pool)
        pool.progressed(worker, core.now)
        pool.place(worker)
        # A registration that was overtaken on its way knows nothing of later leases, which may be running: only the
        # first poll of the session proves that the worker stands by it.
        core.decision.replies.append(RegisterReply(event.ticket, worker.session, dropped))

    def give_back(self, worker: Worker) -> None:
        """What was granted to the worker and never arrived."""
        missing, worker.missing = worker.missing, []
        for task_id in missing:
            if task_id in worker.held:
                self.put_back(worker, task_id)

    def take_back(self, worker: Worker, returned: list[tuple[TaskId, int]]) -> None:
        for task_id, lease in returned:
            # A doubled or late one names a lease that is over; the worker may run the task under the next one.
            if self._holds(worker, task_id, lease):
                self.put_back(worker, task_id)
                self._core.counters.returned += 1

    def put_back(self, worker: Worker, task_id: TaskId) -> None:
        """The attempt never began."""
        core = self._core
        task = core.tasks[task_id]
        worker.release(task_id)
        core.backlog.stopped(task)
        if not task.losses:
            core.backlog.stream(task.queue, task.shape).paid += 1
        self.requeue(task)

    def _holds(self, worker: Worker, task_id: TaskId, lease: int) -> bool:
        task = self._core.tasks.get(task_id)
        return task_id in worker.held and task is not None and task.lease == lease

    def poll(self, event: Polled) -> None:
        core = self._core
        worker = self.workers.get(event.worker)
        if worker is None or not worker.session or worker.session != event.session:
            core.counters.stale_polls += 1
            core.decision.replies.append(PollReply(event.ticket, None))
            return
        worker.heard_at = core.now
        worker.leaving = worker.leaving or event.leaving
        if event.leaving:
            core.backlog.knows(worker, None)
        pool = core.backlog.pool(worker.pool)
        self.give_back(worker)
        if event.notes:
            take_notes(core, worker, event.notes)
        for outcome in event.outcomes:
            core.ended(worker, outcome)
        self.take_back(worker, event.returned)
        if event.outcomes:
            pool.progressed(worker, core.now)
        reported = bool(event.outcomes or event.returned or event.leaving or event.notes)
        poll = self._alarms.park(worker, event.ticket, reported, core.now, len(self.workers))
        if reported:
            self.reported.append((worker, poll))
        pool.place(worker)

    def meet(self, name: str, pool_name: str, concurrency: int) -> Worker:
        core = self._core
        worker = Worker(name, pool_name, concurrency, heard_at=core.now)
        self.workers[name] = worker
        core.backlog.pool(pool_name).workers[name] = worker
        self._alarms.set(worker, core.now + core.settings.poll_s)
        return worker

    def lose(self, event: WorkerLost) -> None:
        core = self._core
        worker = self.workers.pop(event.worker, None)
        if worker is None:
            return
        pool = core.backlog.pool(worker.pool)
        pool.forget(worker)
        core.backlog.knows(worker, None)
        core.decision.replies.extend(PollReply(poll.ticket, None) for poll in worker.polls)
        worker.polls.clear()
        alone = len(worker.held) == 1
        charged = event.charged and not worker.leaving
        core.counters.lost += len(worker.held)
        for task_id in worker.held:
            task = core.tasks[task_id]
            core.backlog.stopped(task)
            if charged and task.losses >= event.proof and alone and task.stop_reason is None:
                # Nobody else can have done it.
                died(core, task, event.cause)
                continue
            task.losses += charged
            self.requeue(task)
        core.backlog.release(pool)

    def requeue(self, task: Task) -> None:
        lost(self._core, task)

    def _excuse_absence(self, now: float) -> None:
        """While a commit waits for Postgres no poll is answered: that silence is ours and not the workers'."""
        absence_s = now - self._core.now - self._core.settings.poll_s
        if absence_s > 0:
            for worker in self.workers.values():
                worker.heard_at += absence_s

    def ring_alarms(self) -> None:
        """Answer polls that were parked long enough, and notice workers that fell silent."""
        core, settings = self._core, self._core.settings
        for worker in self._alarms.ring(self.workers, core.now):
            core.decision.replies.extend(PollReply(poll.ticket, []) for poll in self._alarms.over(worker, core.now))
            if worker.polls:
                next_at = min(poll.until for poll in worker.polls)
            else:
                core.backlog.pool(worker.pool).place(worker)
                silent_at = worker.heard_at + settings.poll_s + settings.silence_s
                if silent_at <= core.now:
                    self.lose(WorkerLost(worker.name, f"silent for {core.now - worker.heard_at:.0f} s"))
                    continue
                next_at = min(silent_at, core.now + settings.poll_s)
            self._alarms.set(worker, next_at)

    def expect(self, granted: Iterable[Worker]) -> None:
        """Whoever was given something is to be heard of as soon as any other, however long it was to wait before."""
        for worker in granted:
            self._alarms.expect(worker, self._core.now)

    def answer_reports(self) -> None:
        """Whoever reported is answered now, with or without leases: the answer says that the outcomes are recorded."""
        for worker, poll in self.reported:
            if poll in worker.polls:
                worker.polls.remove(poll)
                self._core.decision.replies.append(PollReply(poll.ticket, []))
                self._core.backlog.pool(worker.pool).place(worker)

    def next_alarm(self) -> float | None:
        return self._alarms.next()
