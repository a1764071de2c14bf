"""What the core itself may do wrong, as subclasses that do."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from asyncproc.core.attendance import Attendance
from asyncproc.core.backlog import Backlog
from asyncproc.core.decision import Decision, EnqueueReply, PollReply, Writes
from asyncproc.core.dependents import Dependents
from asyncproc.core.events import (
    Draining,
    Enqueued,
    Event,
    Lease,
    Loaded,
    Outcome,
    Page,
    Polled,
    Registered,
    Released,
    WorkerLost,
)
from asyncproc.core.replace import replace as replace_tasks
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.task import NewTask, Task, TaskId
from asyncproc.core.workers import Worker


class SkipsTheLeaseCheck(Core):
    """A result counts whatever its lease."""

    def ended(self, worker: Worker, outcome: Outcome) -> None:
        task = self.tasks.get(outcome[0])
        super().ended(worker, outcome if task is None else (outcome[0], task.lease, *outcome[2:]))


class SkipsTheStateCheck(Core):
    """A result counts though the task runs no more."""

    def ended(self, worker: Worker, outcome: Outcome) -> None:
        task = self.tasks.get(outcome[0])
        if task is not None:
            task.state, task.worker = State.RUNNING, worker.name
        super().ended(worker, outcome)


class _MindsWorkers(Core):
    """A core whose attendance is another one."""

    Minds: type[Attendance]

    def __init__(self, settings: CoreSettings, epoch: int = 0) -> None:
        super().__init__(settings, epoch)
        self.attendance = self.Minds(self, epoch)
        self.workers = self.attendance.workers


class ForgetsTheLost(_MindsWorkers):
    """The tasks of a lost worker stay where they were."""

    class Minds(Attendance):
        def lose(self, event: WorkerLost) -> None:
            if (worker := self.workers.get(event.worker)) is not None:
                worker.held.clear()
            super().lose(event)


class ForgetsTheUndelivered(_MindsWorkers):
    """What a worker does not hold when it registers is thought to be there all the same."""

    class Minds(Attendance):
        def register(self, event: Registered) -> None:
            worker = self.workers.get(event.worker)
            tasks = self._core.tasks
            believed = [] if worker is None else [(task_id, tasks[task_id].lease) for task_id in worker.held]
            super().register(replace(event, held=[*event.held, *believed]))


class SkipsTheLeaseCheckOnReturn(_MindsWorkers):
    """A lease that is returned ends whatever lease the worker has of the task by now."""

    class Minds(Attendance):
        def take_back(self, worker: Worker, returned: list[tuple[TaskId, int]]) -> None:
            tasks = self._core.tasks
            super().take_back(
                worker, [(task_id, tasks[task_id].lease) for task_id, _ in returned if task_id in worker.held]
            )


class IgnoresReturns(_MindsWorkers):
    """What was called back is thought to be there still."""

    class Minds(Attendance):
        def take_back(self, worker: Worker, returned: list[tuple[TaskId, int]]) -> None:
            pass


class TakesBackUnasked(Core):
    """What is called back is given to others though its worker may have begun it."""

    def _dispatch(self) -> None:
        super()._dispatch()
        for reply in self.decision.replies:
            if isinstance(reply, PollReply):
                for task_id, _ in reply.recalled:
                    self.attendance.put_back(self.workers[self.tasks[task_id].worker], task_id)


class TakesPagesLast(Core):
    """A page is taken after what happened since it was read."""

    def step(self, events: Sequence[Event], now: float) -> Decision:
        pages = [event for event in events if isinstance(event, Page)]
        decision = super().step([event for event in events if not isinstance(event, Page)], now)
        for page in pages:
            self.backlog.take_page(page)
        return decision


class ChargesTheLost(_MindsWorkers):
    """A lost attempt counts."""

    class Minds(Attendance):
        def requeue(self, task: Task) -> None:
            super().requeue(task)
            task.attempt += 1


class ChargesAnInnocent(_MindsWorkers):
    """The first death of its worker fails whoever is aboard alone."""

    class Minds(Attendance):
        def lose(self, event: WorkerLost) -> None:
            worker = self.workers.get(event.worker)
            for task_id in [] if worker is None else worker.held:
                task = self._core.tasks[task_id]
                task.losses = max(1, task.losses)
            super().lose(event)


class ChargesWhoWasTakenAlong(_MindsWorkers):
    """That a worker died together with the QueueActor proves as much as that it died alone."""

    class Minds(Attendance):
        def lose(self, event: WorkerLost) -> None:
            super().lose(replace(event, proof=1))


class MovesTheLostBack(_MindsWorkers):
    """A recovered task goes to the end of its queue."""

    class Minds(Attendance):
        def requeue(self, task: Task) -> None:
            task.ready_at = self._core.now
            task.rank = self._core.now
            super().requeue(task)


class ReusesSessions(Core):
    """The sessions of all reigns have the same numbers."""

    def __init__(self, settings: CoreSettings, epoch: int = 0) -> None:
        super().__init__(settings)


class HearsOldRegistrations(_MindsWorkers):
    """A registration counts though a later one may have come first."""

    class Minds(Attendance):
        def register(self, event: Registered) -> None:
            super().register(event)
            self.give_back(self.workers[event.worker])


class HandsBackInADrain(_MindsWorkers):
    """While it drains, a registration counts though a later one may have come first."""

    class Minds(Attendance):
        def register(self, event: Registered) -> None:
            super().register(event)
            if self._core.draining:
                self.give_back(self.workers[event.worker])


class BlamesTheWorkers(_MindsWorkers):
    """While Postgres is away, it is the workers that are silent."""

    class Minds(Attendance):
        def _excuse_absence(self, now: float) -> None:
            pass


class GivesUpEarly(Core):
    """A worker is given up as soon as it has no poll open."""

    def __init__(self, settings: CoreSettings, epoch: int = 0) -> None:
        super().__init__(replace(settings, silence_s=-settings.poll_s), epoch)


class EnqueuesTwice(Core):
    """A task that is asked for again is a new one."""

    def _enqueue(self, tasks: Iterable[NewTask]) -> None:
        for task in tasks:
            self.tasks.pop(task[0], None)
            self.fresh.discard(task[0])
            super()._enqueue([task])


class KeepsTheImpatientWaiting(_MindsWorkers):
    """All workers are taken to wait for as long as it takes."""

    class Minds(Attendance):
        def register(self, event: Registered) -> None:
            super().register(event)
            self.workers[event.worker].patient = True


class LeavesPollsWaiting(_MindsWorkers):
    """A poll is answered when there is something to say."""

    class Minds(Attendance):
        def ring_alarms(self) -> None:
            pass


class SleepsOn(Core):
    """Nothing wakes it for what comes due."""

    def _next_wake(self) -> float | None:
        return self.attendance.next_alarm()


class RestsEveryOtherStep(Core):
    """Leases are granted in every other step."""

    def _dispatch(self) -> None:
        if self.counters.enqueued % 2:
            super()._dispatch()


class GrantsWhileDraining(Core):
    """A drain stops nothing."""

    def _take(self, event: Event) -> None:
        if not isinstance(event, Draining):
            super()._take(event)


class ReplacesAllTheSame(Core):
    """A request that is refused for room leaves what it replaced."""

    def _enqueued(self, event: Enqueued) -> None:
        super()._enqueued(event)
        reply = self.decision.replies[-1]
        if isinstance(reply, EnqueueReply) and reply.full:
            replace_tasks(self, event.replaced)


class CountsTwice(Core):
    """Every start is counted twice."""

    def _claim(self, task: Task, worker: Worker, estimate_s: float) -> Lease:
        self.counters.claimed += 1
        return super()._claim(task, worker, estimate_s)


class ConfinesNobody(Core):
    """A suspect runs where others do."""

    def _claim(self, task: Task, worker: Worker, estimate_s: float) -> Lease:
        task_id, number, attempt, type_name, queue, payload, rank, limits, *_ = super()._claim(task, worker, estimate_s)
        return (task_id, number, attempt, type_name, queue, payload, rank, limits, False)


class ForgetsTheLastNote(_MindsWorkers):
    """What an attempt noted last is not taken with its end."""

    class Minds(Attendance):
        def poll(self, event: Polled) -> None:
            super().poll(replace(event, notes=() if event.outcomes else event.notes))


class ForgetsWhatWasLeft(Core):
    """A successor knows of no checkpoints."""

    def _loaded(self, event: Loaded) -> None:
        for task in event.running:
            task.checkpoint_bytes = 0
        super()._loaded(event)


class _ForgetsFamilies(Core):
    def __init__(self, settings: CoreSettings, epoch: int = 0) -> None:
        super().__init__(settings, epoch)
        self.dependents = self.make_dependents()

    def make_dependents(self) -> Dependents:
        raise NotImplementedError


class LeavesTheReleased(_ForgetsFamilies):
    """What a commit released is not taken in."""

    def make_dependents(self) -> Dependents:
        class Leaves(Dependents):
            def take(self, event: Released, backlog: Backlog) -> None:
                super().take(replace(event, tasks=[]), backlog)

        return Leaves()


class OverlooksTheReleased(_ForgetsFamilies):
    """What a commit released unseen is not looked for."""

    def make_dependents(self) -> Dependents:
        class Overlooks(Dependents):
            def take(self, event: Released, backlog: Backlog) -> None:
                super().take(replace(event, since=None), backlog)

        return Overlooks()


class OwesNothing(_ForgetsFamilies):
    """A new reign does not see to children whose parents have ended."""

    def make_dependents(self) -> Dependents:
        class Owes(Dependents):
            def owe(self, parents: list[TaskId] | None) -> None:
                super().owe(None if parents is None else [])

        return Owes()


class SeesSuccessAlone(_ForgetsFamilies):
    """The children of what fails or is cancelled are left waiting."""

    def make_dependents(self) -> Dependents:
        class Sees(Dependents):
            def close(self, writes: Writes) -> None:
                super().close(writes)
                writes.parents = [row[0] for row in writes.succeeded] if self.any else []

        return Sees()


CORES: Final = (
    SkipsTheLeaseCheck, SkipsTheStateCheck, ForgetsTheLost, ForgetsTheUndelivered, SkipsTheLeaseCheckOnReturn,
    IgnoresReturns, TakesBackUnasked, TakesPagesLast, ChargesTheLost, ChargesAnInnocent, MovesTheLostBack,
    ReusesSessions, HearsOldRegistrations, HandsBackInADrain, BlamesTheWorkers, GivesUpEarly, KeepsTheImpatientWaiting,
    EnqueuesTwice, LeavesPollsWaiting, SleepsOn, RestsEveryOtherStep, GrantsWhileDraining, CountsTwice, ConfinesNobody,
    ForgetsTheLastNote, ForgetsWhatWasLeft, ReplacesAllTheSame, ChargesWhoWasTakenAlong,
    LeavesTheReleased, OverlooksTheReleased, OwesNothing, SeesSuccessAlone,
)  # fmt: skip
