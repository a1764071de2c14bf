"""Tasks in processes of their own, without Ray and without a worker around them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from uuid import UUID

import psutil
import pytest

from asyncproc.actors import cells as cells_module
from asyncproc.actors.cell_process import Order, make_executor
from asyncproc.actors.cells import Cells, _Cell
from asyncproc.clock import TaskIds, id_text
from asyncproc.config import Settings
from asyncproc.core.events import FAILED, KILLED, SUCCEEDED, Lease, Outcome
from asyncproc.core.task import NO_LIMITS, TimeLimits
from asyncproc.notes import Notebook, NoteLimits
from asyncproc.parents import Chunk
from asyncproc.registry import from_settings
from asyncproc.tasks.generate_report import Row
from tests.deployed import Ledger
from tests.eventually import eventually

IDS = TaskIds()
NOTEBOOK = Notebook(NoteLimits())
SAMPLES = Path(__file__).parent
ROWS: list[Row] = [("queued", "mail", "Note", 3, None, 1.5)]
Confined = Callable[..., tuple[int, str]]


class _Figures:
    async def read(self) -> list[Row]:
        return ROWS


class _Parents:
    """One parent by call."""

    _ids = (IDS.make(), IDS.make())

    async def read(self, task_id: str, start: int) -> Chunk:
        refs = json.dumps({"a": str(UUID(bytes=self._ids[0]))})
        return 2, None if start else refs, [(self._ids[start], "succeeded", b"7", None)]


def settings() -> Settings:
    return Settings.model_validate({"tasks": ["sample_tasks"]})


def order() -> Order:
    return Order(settings(), str(SAMPLES), "default-1.x")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def cells(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cells]:
    """Children end as soon as they have nothing to do, and are seen to end."""
    monkeypatch.setattr(cells_module, "IDLE_S", 1.0)
    before = set(psutil.Process().children(recursive=True))
    yield Cells(order(), _Figures(), _Parents(), loop, NOTEBOOK)
    NOTEBOOK.open.clear()
    eventually(lambda: set(psutil.Process().children(recursive=True)) <= before)


def run(cells: Cells, granted: Lease) -> Outcome:
    outcome = cells.run(granted)
    assert outcome is not None
    return outcome


def lease(task_type: str, **payload: object) -> Lease:
    return limited(NO_LIMITS, task_type, **payload)


def limited(limits: TimeLimits, task_type: str, **payload: object) -> Lease:
    return (IDS.make(), 1, 1, task_type, "default", json.dumps(payload).encode(), 0.0, limits, True)


@pytest.mark.parametrize(
    ("task_type", "payload"),
    [
        ("Note", {"n": 5}),
        ("NoteAsync", {"n": 5}),
        ("Explode", {"how": "plain"}),
        ("Explode", {"how": "unpicklable"}),
        ("Explode", {"how": "exit"}),
        ("ExplodeAsync", {"how": "plain"}),
        ("Answer", {"how": "nan"}),
        ("Answer", {"how": "large"}),
        ("Nonsense", {}),
        ("Gather", {}),
        ("GatherAsync", {}),
    ],
)
def test_a_task_ends_there_as_it_does_in_the_worker(
    cells: Cells, ledger: Ledger, task_type: str, payload: dict[str, object]
) -> None:
    granted = lease(task_type, ledger=ledger.path, **payload)
    executor = make_executor(settings(), from_settings(settings(), SAMPLES), "default-1.x", _Figures(), _Parents())

    there = run(cells, granted)
    here = asyncio.run(executor.run_async(granted)) if executor.is_async(task_type) else executor.run(granted)

    assert there[:3] == here[:3]
    if "Gather" in task_type:
        assert json.loads(there[3]) == {"sum": 14, "parents": 2, "states": {"a": "succeeded"}}
    if here[2] == SUCCEEDED:
        assert there[3] == here[3]
    else:
        record, expected = json.loads(there[3]), json.loads(here[3])
        assert (there[4], record["type"], record["message"]) == (here[4], expected["type"], expected["message"])
        assert record["traceback"].splitlines()[-1] == expected["traceback"].splitlines()[-1]


@pytest.mark.parametrize("task_type", ["Resume", "ResumeAsync"])
def test_what_it_notes_there_is_noted_here(cells: Cells, task_type: str) -> None:
    first = lease(task_type, parts=2)
    assert run(cells, first)[2] == FAILED
    note = NOTEBOOK.open[first[:2]].take()
    assert note is not None
    _, _, _, progress, checkpoint, log = note
    assert checkpoint is not None
    assert (checkpoint, json.loads(progress or b"")["done"]) == (b'{"part":1}', 1)
    assert json.loads(log or b"")["message"] == "part 1 of 2"

    task_id, number, attempt, name, queue, payload, rank, limits, confined, *_ = first
    second = (task_id, number + 1, attempt + 1, name, queue, payload, rank, limits, confined, checkpoint)
    assert run(cells, second)[2:4] == (SUCCEEDED, b"2")


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("killed", "SIGKILL"),
        ("exits", "it ended with exit code 0"),
        ("aborts", "SIGABRT"),
        ("segfaults", "SIGSEGV"),
    ],
)
def test_a_task_that_takes_its_process_along_fails_with_the_cause(
    cells: Cells, ledger: Ledger, how: str, cause: str
) -> None:
    outcome = run(cells, lease("Die", ledger=ledger.path, n=1, how=how))

    assert (outcome[2], outcome[4]) == (KILLED, f"WorkerDied: its process was killed or crashed: {cause}")
    assert json.loads(outcome[3])["type"] == "WorkerDied"
    assert run(cells, lease("Note", ledger=ledger.path, n=2))[2] == SUCCEEDED


@pytest.mark.parametrize("how", ["sleeps", "spins", "is deaf", "keeps the interpreter"])
def test_a_task_that_hangs_ends_with_its_process(cells: Cells, ledger: Ledger, how: str) -> None:
    outcome = run(cells, limited(TimeLimits(0.3), "Hang", ledger=ledger.path, n=1, how=how))

    assert (outcome[2], outcome[4].partition(":")[0]) == (KILLED, "TimeLimitExceeded")
    (trace,) = ledger.traces()
    eventually(lambda: not psutil.pid_exists(trace.pid))


def test_the_soft_limit_is_told_there_too(cells: Cells) -> None:
    outcome = run(cells, limited(TimeLimits(30.0, 0.2), "TidyUp", seconds=60))
    assert (outcome[2], outcome[3]) == (SUCCEEDED, b'"tidied up"')


def test_a_task_may_ask_for_more_time_there_too(cells: Cells, ledger: Ledger) -> None:
    outcome = run(cells, limited(TimeLimits(0.3), "Extend", by=[1.0, 60.0], seconds=1.0))
    assert (outcome[2], outcome[3]) == (SUCCEEDED, b'"done"')
    outcome = run(cells, limited(TimeLimits(0.2), "Extend", by=[0.1], seconds=60.0))
    assert (outcome[2], "longer than 0.3 s" in outcome[4]) == (KILLED, True)
    assert "in all (queue.maxExtended)" in run(cells, limited(TimeLimits(9.0), "Extend", by=[3601.0], seconds=0.0))[4]


def test_a_process_serves_one_task_after_the_other(cells: Cells, ledger: Ledger) -> None:
    for n in range(5):
        assert run(cells, lease("Note", ledger=ledger.path, n=n))[2] == SUCCEEDED
    assert run(cells, lease("Explode", how="plain"))[2] == FAILED
    assert run(cells, lease("Note", ledger=ledger.path, n=5))[2] == SUCCEEDED
    assert len({trace.pid for trace in ledger.traces()}) == 1
    assert os.getpid() not in {trace.pid for trace in ledger.traces()}


def test_the_largest_is_ended_where_the_memory_of_its_node_ends_and_none_that_is_small(
    cells: Cells, ledger: Ledger, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0")
    monkeypatch.setattr("asyncproc.actors.memory.MOST_MARGIN", 300 << 20)
    ended: list[int] = []
    beside = lease("Hold", ledger=ledger.path, n=1, gate=str(gate))
    small = Thread(target=lambda: ended.append(run(cells, beside)[2]))
    small.start()
    eventually(lambda: len(ledger.traces()) == 1)

    large = run(cells, lease("Die", ledger=ledger.path, n=2, how="hoards"))

    gate.touch()
    small.join()
    assert (large[2], ended) == (KILLED, [SUCCEEDED])
    assert re.match(r"MemoryShort: the memory of its node was about to end, of which it took 0\.[3-5] GiB; ", large[4])


def test_a_process_that_was_told_to_end_when_its_task_just_had_gets_no_other(
    cells: Cells, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    converse = cells._converse

    def ended_at_the_last_moment(cell: _Cell, granted: Lease) -> Outcome | None:
        outcome = converse(cell, granted)
        cells.kill(granted[0])
        return outcome

    with monkeypatch.context() as patched:
        patched.setattr(cells, "_converse", ended_at_the_last_moment)
        assert run(cells, lease("Note", ledger=ledger.path, n=1))[2] == SUCCEEDED
    assert not cells._idle
    assert run(cells, lease("Note", ledger=ledger.path, n=2))[2] == SUCCEEDED


def test_tasks_at_the_same_time_have_a_process_each(cells: Cells, ledger: Ledger, gate: Path) -> None:
    outcomes: list[int] = []
    threads = [
        Thread(
            target=lambda n=n: outcomes.append(run(cells, lease("Hold", ledger=ledger.path, n=n, gate=str(gate)))[2])
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: len(ledger.traces()) == 3)
    gate.touch()
    for thread in threads:
        thread.join()
    assert outcomes == [SUCCEEDED] * 3
    assert len({trace.pid for trace in ledger.traces()}) == 3


def test_a_report_gets_its_figures_through_the_worker(cells: Cells) -> None:
    outcome = run(cells, lease("GenerateReport", reportType="daily"))
    assert outcome[2] == SUCCEEDED
    assert json.loads(outcome[3])["waitingByQueue"] == {"mail": 3}


def test_what_enqueues_others_does_so_from_there(cells: Cells, ledger: Ledger) -> None:
    outcome = run(cells, lease("Parent", ledger=ledger.path, n=1))
    assert outcome[2] == SUCCEEDED
    ((child_id, payload, options, *_),) = outcome[7]
    assert outcome[3].decode() == json.dumps(id_text(child_id))
    assert (options.type, json.loads(payload)["n"]) == ("Note", 2)


def test_a_process_ends_with_its_worker(ledger: Ledger, gate: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-m", __name__, ledger.path, str(gate)])
    try:
        (trace,) = eventually(ledger.traces)
        assert trace.pid != worker.pid
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    eventually(lambda: not psutil.pid_exists(trace.pid))


if __name__ == "__main__":
    alone = Cells(order(), _Figures(), _Parents(), asyncio.new_event_loop(), NOTEBOOK)
    alone.run(lease("Hold", ledger=sys.argv[1], n=1, gate=sys.argv[2]))
