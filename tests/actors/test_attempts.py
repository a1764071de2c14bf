"""What a task may do to its worker: nothing. Errors become bounded text, results JSON, children come with success."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from asyncproc.clock import id_text
from asyncproc.core.states import State
from asyncproc.executor import MAX_MESSAGE, MAX_TRACEBACK
from tests.deployed import Ledger, System, deployed, settings_of

ERRORS: Final = {
    "plain": "ValueError: it broke",
    "unpicklable": "Unpicklable: it cannot be pickled",
    "lying": "Lying: (its text cannot be had: RuntimeError)",
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt",
    "cancelled": "CancelledError",
    "huge": "ValueError: xxxxxxxx",
    "unstorable": "ValueError: a NUL \ufffd and half a pair ?",
    "deep": "RecursionError: maximum recursion depth exceeded",
}
REFUSED: Final = {
    "object": "ResultRefused: the result is not a JSON value",
    "generator": "ResultRefused: a generator is not a JSON value",
    "large": "ResultRefused: the result is 2000002 bytes: at most 1048576 are kept",
    "circle": "ResultRefused: the result is not a JSON value",
    "surrogate": "ResultRefused: the result is not a JSON value",
}


@pytest.fixture(scope="module")
def system(
    ray_cluster: None, databases: Callable[[], AbstractContextManager[str]], start_dir: Path
) -> Iterator[System]:
    queue = {"workerPoolSize": 1, "maxTaskRetry": 1, "backOff": {"base": "10ms", "jitter": 0}}
    with databases() as database, deployed(settings_of(database, "attempts", queue=queue), start_dir) as system:
        yield system


@pytest.fixture(autouse=True)
def _no_worker_is_lost(system: System) -> Iterator[None]:
    before = set(system.workers())
    yield
    assert set(system.workers()) == before


@pytest.mark.parametrize("task_type", ["Explode", "ExplodeAsync"])
@pytest.mark.parametrize("how", ERRORS)
def test_whatever_a_task_raises_fails_the_attempt_with_bounded_text(system: System, how: str, task_type: str) -> None:
    (task,) = system.enqueue(task_type, {"how": how})

    ended = system.ended(task)
    (error,) = system.errors(task)
    assert ended.state is State.FAILED
    assert (ended.error or "").startswith(ERRORS[how])
    assert len(ended.error or "") <= MAX_MESSAGE
    assert error["type"] == ERRORS[how].partition(":")[0]
    assert len(error["message"]) <= MAX_MESSAGE
    assert 0 < len(error["traceback"]) <= MAX_TRACEBACK + len("\n...\n")
    assert ended.result is None


@pytest.mark.parametrize("how", REFUSED)
def test_a_result_that_cannot_be_kept_fails_the_attempt(system: System, how: str) -> None:
    (task,) = system.enqueue("Answer", {"how": how})

    ended = system.ended(task)
    assert ended.state is State.FAILED
    assert (ended.error or "").startswith(REFUSED[how])


@pytest.mark.parametrize(
    ("how", "kept"), [("nan", {"nan": "NaN", "inf": "Infinity"}), ("nul", {"nul": "a\x00b", "set": [1]})]
)
def test_a_result_is_kept_as_what_every_reader_of_json_understands(
    system: System, how: str, kept: dict[str, object]
) -> None:
    (task,) = system.enqueue("Answer", {"how": how})

    ended = system.ended(task)
    assert ended.state is State.SUCCEEDED
    assert json.loads(ended.result or b"") == kept


def test_a_child_exists_once_its_parent_has_succeeded(system: System, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")

    (parent,) = system.enqueue("Parent", {"ledger": ledger.path, "n": 1})

    result = json.loads(system.ended(parent).result or b"")
    (child,) = _children(system, parent)
    assert id_text(child) == result
    assert system.ended(child).state is State.SUCCEEDED
    assert ledger.order() == [1, 2]


def test_an_attempt_that_fails_leaves_no_child(system: System, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")

    (once,) = system.enqueue("Parent", {"ledger": ledger.path, "n": 1, "failsUntil": 1})
    (always,) = system.enqueue("Parent", {"ledger": ledger.path, "n": 11, "failsUntil": 99})

    assert system.ended(once).state is State.SUCCEEDED
    assert len(_children(system, once)) == 1
    assert (system.ended(always).state, system.task(always).attempt) == (State.FAILED, 2)
    assert _children(system, always) == []
    for child in _children(system, once):
        system.ended(child)
    assert ledger.runs() == {1: 2, 2: 1, 11: 2}


@pytest.mark.parametrize("task_type", ["Resume", "ResumeAsync"])
def test_the_next_attempt_finds_what_the_last_one_left(system: System, task_type: str) -> None:
    (task,) = system.enqueue(task_type, {"parts": 3})

    ended = system.ended(task)
    assert (ended.state, ended.result, ended.attempt) == (State.SUCCEEDED, b"3", 3)
    assert json.loads(ended.progress or b"")["note"] == "part 3"
    lines = json.loads(ended.log or b"")
    assert [(line["attempt"], line["message"]) for line in lines] == [(n, f"part {n} of 3") for n in (1, 2, 3)]
    assert ended.checkpoint == b'{"part":3}'


def test_a_failed_task_that_is_retried_by_hand_keeps_its_errors(system: System) -> None:
    (task,) = system.enqueue("Explode", {"how": "plain"})
    system.ended(task)

    assert system.retry(task)

    assert len(system.errors(task)) in {1, 2}
    ended = system.ended(task)
    assert (ended.state, ended.attempt) == (State.FAILED, 1)
    assert [error["attempt"] for error in system.errors(task)] == [1, 1]


def test_only_a_failed_task_can_be_retried_by_hand(system: System) -> None:
    (task,) = system.enqueue("Answer", {"how": "nan"})
    system.ended(task)

    assert not system.retry(task)
    assert system.task(task).state is State.SUCCEEDED


@pytest.mark.parametrize(
    ("how", "why"),
    {
        "priority": "priority is 1099511627776",
        "not a number": "priority is '5'",
        "nul": "queue is 'a",
        "surrogate": "queue is '",
        "delay": "delay is 1e+300",
        "many": "may enqueue 10000 others",
        "large": "the payload of a Note is 20000",
        "heavy": "the tasks it enqueued are over 16777216 bytes together",
    }.items(),
)
def test_a_child_that_cannot_be_kept_fails_its_parent_and_nobody_else(system: System, how: str, why: str) -> None:
    (parent,) = system.enqueue("Misplace", {"how": how})
    (neighbour,) = system.enqueue("Answer", {"how": "nul"})
    epoch = system.health().epoch

    record = system.ended(parent)

    assert record.state is State.FAILED
    assert why in (record.error or "")
    assert _children(system, parent) == []
    assert system.ended(neighbour).state is State.SUCCEEDED
    assert system.health().epoch == epoch


def _children(system: System, parent: bytes) -> list[bytes]:
    return [record.id for record in system.tasks(created_by=f"task {id_text(parent)}")]
