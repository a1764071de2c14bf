"""Histories with faults, and mutants of the core that must not survive them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest

from asyncproc.core import backlog, workers
from asyncproc.core.decision import Decision, PollReply
from asyncproc.core.events import Event, Outcome, Page, Registered, RetryAsked
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.task import NewTask, Task, TaskId
from asyncproc.core.workers import Worker
from simulation.histories import History

SEEDS = 200
BATCHES = 8
SEEDS_FOR_MUTANTS = 60

FAULTS = {
    "crash after answers", "crash before answers", "crash before commit", "death", "doubled enqueue", "doubled report",
    "doubled return", "dropped lease", "impatience", "poison", "Postgres away", "recall", "retried by hand",
    "said to be dead", "silent death", "unknown commit",
}  # fmt: skip


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whatever_breaks_every_task_ends_once_and_none_runs_twice(batch: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(batch, SEEDS, BATCHES):
        try:
            seen += History(seed).run().seen
        except Exception as error:
            error.add_note(f"replay with History({seed}).run()")
            raise
    assert seen.keys() >= FAULTS, "a history without trouble proves nothing"


class NoLeaseCheck(Core):
    """A result counts whatever its lease."""

    def _ended(self, worker: Worker, outcome: Outcome) -> None:
        task = self.tasks.get(outcome[0])
        super()._ended(worker, outcome if task is None else (outcome[0], task.lease, *outcome[2:]))


class NoStateCheck(Core):
    """A result counts though the task runs no more."""

    def _ended(self, worker: Worker, outcome: Outcome) -> None:
        task = self.tasks.get(outcome[0])
        if task is not None:
            task.state, task.worker = State.RUNNING, worker.name
        super()._ended(worker, outcome)


class ForgetsTheLost(Core):
    """The tasks of a lost worker stay where they were."""

    def _worker_lost(self, name: str, cause: str, charged: bool) -> None:
        if (worker := self.workers.get(name)) is not None:
            worker.held.clear()
        super()._worker_lost(name, cause, charged)


class ForgetsTheUndelivered(Core):
    """What a worker does not hold when it registers is thought to be there all the same."""

    def _registered(self, event: Registered) -> None:
        worker = self.workers.get(event.worker)
        believed = [] if worker is None else [(task_id, self.tasks[task_id].lease) for task_id in worker.held]
        super()._registered(replace(event, held=[*event.held, *believed]))


class NoLeaseCheckOnReturn(Core):
    """A lease that is returned ends whatever lease the worker has of the task by now."""

    def _returned(self, worker: Worker, returned: list[tuple[TaskId, int]]) -> None:
        current = [(task_id, self.tasks[task_id].lease) for task_id, _ in returned if task_id in worker.held]
        super()._returned(worker, current)


class IgnoresReturns(Core):
    """What was called back is thought to be there still."""

    def _returned(self, worker: Worker, returned: list[tuple[TaskId, int]]) -> None:
        pass


class TakesBackUnasked(Core):
    """What is called back is given to others though its worker may have begun it."""

    def _dispatch(self) -> None:
        super()._dispatch()
        for reply in self._decision.replies:
            if isinstance(reply, PollReply):
                for task_id, _ in reply.recalled:
                    self._put_back(self.workers[self.tasks[task_id].worker], task_id)


class PagesLast(Core):
    """A page is taken after what happened since it was read."""

    def step(self, events: Sequence[Event], now: float) -> Decision:
        pages = [event for event in events if isinstance(event, Page)]
        decision = super().step([event for event in events if not isinstance(event, Page)], now)
        for page in pages:
            self._backlog.take_page(page)
        return decision


class ChargesTheLost(Core):
    """A lost attempt counts."""

    def _requeue(self, task: Task) -> None:
        super()._requeue(task)
        task.attempt += 1


class RestartsLeases(Core):
    """A retry by hand begins at lease 0 again."""

    def _retry_asked(self, event: RetryAsked) -> None:
        event.task.lease = 0
        super()._retry_asked(event)


class SharesSessions(Core):
    """The sessions of all reigns have the same numbers."""

    def __init__(self, settings: CoreSettings, epoch: int = 0) -> None:
        super().__init__(settings)


class HearsOldRegistrations(Core):
    """A registration counts though a later one may have come first."""

    def _registered(self, event: Registered) -> None:
        super()._registered(event)
        self._give_back(self.workers[event.worker])


class BlamesTheWorkers(Core):
    """While Postgres is away, it is the workers that are silent."""

    def _excuse_absence(self, now: float) -> None:
        pass


class EnqueuesTwice(Core):
    """A task that is asked for again is a new one."""

    def _enqueue(self, tasks: Iterable[NewTask]) -> None:
        for task in tasks:
            self.tasks.pop(task[0], None)
            self._fresh.discard(task[0])
            super()._enqueue([task])


MUTANTS: list[type[Core]] = [
    NoLeaseCheck, NoStateCheck, ForgetsTheLost, ForgetsTheUndelivered, PagesLast, ChargesTheLost,
    RestartsLeases, SharesSessions, HearsOldRegistrations, BlamesTheWorkers, EnqueuesTwice, NoLeaseCheckOnReturn,
    IgnoresReturns, TakesBackUnasked,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_no_mutant_of_the_core_survives(mutant: type[Core]) -> None:
    assert survives(lambda seed: History(seed, mutant)) is False


def test_a_core_without_aging_does_not_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "rank", lambda ready_at, priority, aging_s: ready_at)
    assert survives(History) is False


def test_a_core_that_runs_suspects_in_company_does_not_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.Worker, "alone", property(lambda self: False, lambda self, value: None))
    assert survives(History) is False


def test_a_shell_that_answers_before_it_commits_does_not_survive() -> None:
    assert survives(lambda seed: History(seed, hasty=True)) is False


def survives(history: Callable[[int], History]) -> bool:
    """Errors of any kind count as death."""
    for seed in range(SEEDS_FOR_MUTANTS):
        try:
            history(seed).run()
        except (AssertionError, LookupError, TypeError, ValueError):
            return False
        except Exception as error:
            if type(error).__name__ != "InvalidTransition":
                raise
            return False
    return True
