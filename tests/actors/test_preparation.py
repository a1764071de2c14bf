"""`setup` and `teardown` of task classes: in slots without a worker, in children, and in workers that end."""

import asyncio
import json
import os
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import pytest
import ray

from asyncproc.actors import cells as cells_module
from asyncproc.actors.cell_process import Order, make_executor
from asyncproc.actors.cells import Cells
from asyncproc.actors.slots import Slots
from asyncproc.config import Settings
from asyncproc.core.events import FAILED, KILLED, SUCCEEDED, Lease, Outcome
from asyncproc.core.states import State
from asyncproc.core.task import NO_LIMITS, TimeLimits
from asyncproc.notes import Notebook, NoteLimits
from asyncproc.parents import Chunk
from asyncproc.processable import Processable
from asyncproc.registry import RegistryError, _resolve, from_settings
from asyncproc.task_context import TaskContext
from asyncproc.tasks.generate_report import Row
from tests.actors.conftest import Deploy
from tests.actors.sample_models import lines
from tests.deployed import settings_of
from tests.eventually import PATIENCE_S, eventually

IDS = count(1)


class _Figures:
    async def read(self) -> list[Row]:
        return []


class _NoParents:
    async def read(self, task_id: str, start: int) -> Chunk:
        raise AssertionError("nobody asks for parents")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MODEL_LEDGER", str(tmp_path / "models"))
    return str(tmp_path / "models")


def events(ledger: str) -> list[object]:
    return [line["event"] for line in lines(ledger)]


def settings(setup: str = "300s") -> Settings:
    return settings_of("", "n", tasks=["sample_models"], queue={"setup": setup, "teardown": "1s"})


class Worker:
    def __init__(self, start_dir: Path, concurrency: int, setup: str = "300s") -> None:
        given = settings(setup)
        executor = make_executor(given, from_settings(given, start_dir), "default-1.x", _Figures(), _NoParents())
        self.outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self.overdue: SimpleQueue[Outcome] = SimpleQueue()
        self.slots = Slots(executor, concurrency, self.outcomes.put, self.overdue.put)

    def run(self, *leases: Lease) -> list[Outcome]:
        self.slots.put(leases)
        return [self.outcomes.get(timeout=PATIENCE_S) for _ in leases]


def lease(task_type: str, limits: TimeLimits = NO_LIMITS, **payload: object) -> Lease:
    number = next(IDS)
    body = json.dumps({"n": number, **payload}).encode()
    return (number.to_bytes(16), 1, 1, task_type, "default", body, 0.0, limits, False)


@pytest.mark.parametrize(
    ("task_type", "model"), [("Modelled", ""), ("ModelledAsync", ""), ("ModelledLoop", " on the loop")]
)
def test_a_class_is_set_up_once_for_all_slots_and_torn_down_at_the_end(
    start_dir: Path, ledger: str, task_type: str, model: str
) -> None:
    worker = Worker(start_dir, concurrency=4)

    # Its time limit is shorter than the setup takes, which does not count.
    ended = worker.run(*(lease(task_type, TimeLimits(0.04, 0.0)) for _ in range(8)))
    eventually(lambda: not worker.slots._running)
    worker.slots.tear_down(5.0)
    worker.slots.tear_down(5.0)

    assert {outcome[2] for outcome in ended} == {SUCCEEDED}
    assert {outcome[3].split(b" ", 1)[1] for outcome in ended} == {f'loaded{model}"'.encode()}
    assert events(ledger) == [f"setup {task_type}", f"teardown {task_type}"]


@pytest.mark.parametrize("task_type", ["Modelled", "ModelledAsync"])
def test_a_setup_that_fails_fails_the_attempt_and_is_tried_again_for_the_next(
    start_dir: Path, ledger: str, task_type: str
) -> None:
    worker = Worker(start_dir, concurrency=1)
    broken = Path(f"{ledger}.broken")
    broken.touch()

    first = worker.run(lease(task_type))[0]
    broken.unlink()
    second, third = worker.run(lease(task_type), lease(task_type))

    assert (first[2], second[2], third[2]) == (FAILED, SUCCEEDED, SUCCEEDED)
    assert first[4] == (
        f"SetupFailed: setup() of {task_type} failed, and is tried again for the next task: ValueError: no such model"
    )
    assert "sample_models.py" in json.loads(first[3])["traceback"]
    assert events(ledger) == [f"setup {task_type}"] * 2


def test_a_setup_that_hangs_ends_the_process(start_dir: Path, ledger: str) -> None:
    worker = Worker(start_dir, concurrency=1, setup="0.2s")
    Path(f"{ledger}.hangs").touch()

    worker.slots.put([lease("Modelled")])
    outcome = worker.overdue.get(timeout=PATIENCE_S)

    assert outcome[2] == KILLED
    assert outcome[4] == "SetupTooLong: setup() took longer than 0.2 s (queue.setup); its process was ended"
    assert "time.sleep(3600)" in json.loads(outcome[3])["traceback"]


def test_a_teardown_that_sticks_is_not_waited_for(start_dir: Path, ledger: str) -> None:
    worker = Worker(start_dir, concurrency=1)
    worker.run(lease("Modelled"))
    Path(f"{ledger}.sticks").touch()

    eventually(lambda: not worker.slots._running)
    worker.slots.tear_down(0.1)

    assert events(ledger)[1:] == ["teardown Modelled"]


def test_an_async_setup_needs_async_work() -> None:
    class Mixed(Processable):
        @classmethod
        async def setup(cls) -> None: ...

        def process(self, ctx: TaskContext) -> None: ...

    with pytest.raises(RegistryError, match="task type Mixed: setup and teardown run where its work does"):
        _resolve(Mixed, {})


def test_a_child_sets_up_for_itself_and_tears_down_when_it_is_not_needed(
    start_dir: Path, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells_module, "IDLE_S", 0.3)
    monkeypatch.setattr(cells_module, "OVERDUE_S", 0.3)
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    cells = Cells(
        Order(settings("0.5s"), str(start_dir), "default-1.x"), _Figures(), _NoParents(), loop, Notebook(NoteLimits())
    )

    well = cells.run(lease("Modelled", TimeLimits(0.04, 0.0)))
    eventually(lambda: events(ledger) == ["setup Modelled", "teardown Modelled"])
    Path(f"{ledger}.hangs").touch()
    hung = cells.run(lease("Modelled"))

    assert well is not None
    assert well[2] == SUCCEEDED
    assert hung is not None
    assert hung[2] == KILLED
    assert hung[4].startswith("SetupTooLong: ")
    pids = {line["pid"] for line in lines(ledger)}
    assert os.getpid() not in pids
    eventually(lambda: cells._forker is None)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_workers_that_are_worn_or_drained_tear_down(deploy: Deploy, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    system = deploy(tasks=["sample_models"], queue={"workerPoolSize": 1, "recycleAfter": 3})

    worn = [system.ended(task) for task in system.enqueue("Remembering", *[{"ledger": ledger}] * 3)]
    eventually(lambda: len(lines(ledger)) == 1)
    (task,) = system.enqueue("Remembering", {"ledger": ledger})
    last = system.ended(task)
    ray.get(system.queue().drain.remote(60.0))

    assert {(task.state, task.result) for task in [*worn, last]} == {(State.SUCCEEDED, b"1")}
    assert len({line["pid"] for line in lines(ledger)}) == len(lines(ledger)) == 2
