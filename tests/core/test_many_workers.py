"""What a step costs does not depend on how many workers wait: counted by the workers it looks at."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from asyncproc.core import attendance
from asyncproc.core.events import Enqueued, Event, Polled, Registered
from asyncproc.core.settings import CoreSettings
from asyncproc.core.step import Core
from asyncproc.core.task import NO_TERMS, NewTask, Options
from asyncproc.core.workers import Worker
from simulation.world import NOON, THRICE

MANY = 5_000


class WatchedWorker(Worker):
    seen: ClassVar[set[int]] = set()

    def __getattribute__(self, name: str) -> Any:
        WatchedWorker.seen.add(id(self))
        return super().__getattribute__(name)


class Crowd:
    """A core, and workers that all hold a poll open."""

    def __init__(self, concurrency: int) -> None:
        self.core = Core(CoreSettings(poll_s=10.0))
        self._tickets = iter(range(1, 1 << 30))
        self._made = 0
        names = [f"w{number}" for number in range(MANY)]
        self.seen_by(*(Registered(next(self._tickets), name, "default", concurrency, []) for name in names))
        self.seen_by(*(self.poll(name) for name in names))

    def seen_by(self, *events: Event, after_s: float = 0.0) -> int:
        """How many workers a step with these events looks at."""
        WatchedWorker.seen.clear()
        self.core.step(events, NOON + after_s)
        return len(WatchedWorker.seen)

    def enqueued(self, number: int, type_name: str = "Work") -> Enqueued:
        return Enqueued(next(self._tickets), [self._new(type_name) for _ in range(number)])

    def _new(self, type_name: str) -> NewTask:
        self._made += 1
        return (self._made.to_bytes(16), b"{}", Options(type_name, "default", 0, THRICE, ""), 0.0, NO_TERMS)

    def poll(self, worker: str) -> Polled:
        return Polled(next(self._tickets), worker, self.core.workers[worker].session, [])

    def report(self, worker: str) -> Polled:
        """It ended all it holds."""
        held = [(id_, self.core.tasks[id_].lease) for id_ in self.core.workers[worker].held]
        outcomes: Any = [(task_id, lease, True, b"", "", 1.0, 0.0, []) for task_id, lease in held]
        return Polled(next(self._tickets), worker, self.core.workers[worker].session, outcomes)


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(attendance, "Worker", WatchedWorker)
    yield
    WatchedWorker.seen.clear()


def test_a_task_that_comes_is_a_matter_of_one_worker() -> None:
    crowd = Crowd(concurrency=1)
    assert crowd.seen_by(crowd.enqueued(1)) == 1
    assert crowd.seen_by(crowd.enqueued(7)) == 7
    assert crowd.seen_by() == 0


def test_a_free_slot_is_found_among_many_that_have_one() -> None:
    crowd = Crowd(concurrency=2)
    crowd.seen_by(crowd.enqueued(MANY))
    crowd.seen_by(*(crowd.poll(name) for name in crowd.core.workers))
    assert all(len(worker.held) == 1 for worker in crowd.core.workers.values())
    assert crowd.seen_by(crowd.enqueued(1)) == 1


def test_a_backlog_behind_workers_that_are_full_costs_nothing() -> None:
    crowd = Crowd(concurrency=1)
    crowd.seen_by(crowd.enqueued(MANY))
    crowd.seen_by(*(crowd.poll(name) for name in crowd.core.workers))
    assert all(len(worker.held) == 1 for worker in crowd.core.workers.values())
    crowd.seen_by(crowd.enqueued(50, "Unknown"))
    assert crowd.seen_by(crowd.enqueued(50, "Unknown")) == 0
    assert crowd.seen_by(crowd.report("w17")) == 1


def test_room_to_work_ahead_is_found_among_many_that_have_some() -> None:
    crowd = Crowd(concurrency=1)
    crowd.core.run_times.observe("Work", 0.001)
    crowd.seen_by(crowd.enqueued(MANY))
    crowd.seen_by(*(crowd.poll(name) for name in crowd.core.workers))
    assert crowd.seen_by(crowd.enqueued(3)) == 3
