"""One attempt, without Ray: what the worker gets back for whatever a task does."""

import json
from pathlib import Path
from typing import Any

import pytest

from asyncproc.clock import TaskIds, id_text
from asyncproc.core.events import Lease, Outcome
from asyncproc.core.task import NO_LIMITS
from asyncproc.executor import MAX_MESSAGE, Executor
from asyncproc.registry import from_settings
from tests.deployed import Ledger, settings_of

IDS = TaskIds()


@pytest.fixture
def executor(start_dir: Path) -> Executor:
    return Executor(from_settings(settings_of("", "n"), start_dir), "default-1.x", 1024, 1024, 4096, {})


def lease(task_type: str, attempt: int = 1, **payload: Any) -> Lease:
    return (IDS.make(), 7, attempt, task_type, "letters", json.dumps(payload).encode(), 0.0, NO_LIMITS, False)


def test_an_outcome_carries_id_and_lease_number(executor: Executor) -> None:
    granted = lease("Answer", how="nan")

    task_id, number, succeeded, body, error, seconds, spread, children = executor.run(granted)

    assert (task_id, number, succeeded, error, children) == (granted[0], 7, True, "", [])
    assert json.loads(body) == {"nan": "NaN", "inf": "Infinity"}
    assert seconds >= 0
    assert spread == 0


def test_a_failure_carries_its_record_and_the_spread_of_its_retry(executor: Executor) -> None:
    _, _, succeeded, body, error, _, spread, children = executor.run(lease("Explode", how="plain"))

    record = json.loads(body)
    assert (succeeded, error, children) == (False, "ValueError: it broke", [])
    assert (record["type"], record["message"]) == ("ValueError", "it broke")
    assert "sample_tasks.py" in record["traceback"]
    assert -1 <= spread <= 1


async def test_async_types_are_known_and_run_on_the_loop(executor: Executor, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")

    outcome = await executor.run_async(lease("NoteAsync", ledger=ledger.path, n=3))

    assert executor.is_async("NoteAsync")
    assert not executor.is_async("Note")
    assert outcome[2:4] == (True, b"3")


@pytest.mark.parametrize("how", ["exit", "interrupt", "cancelled", "unpicklable", "lying", "deep"])
async def test_nothing_that_a_task_raises_gets_out(executor: Executor, how: str) -> None:
    outcomes = [executor.run(lease("Explode", how=how)), await executor.run_async(lease("ExplodeAsync", how=how))]

    assert [outcome[2] for outcome in outcomes] == [False, False]
    assert all(len(outcome[4]) <= MAX_MESSAGE for outcome in outcomes)


def test_a_payload_that_its_model_no_longer_takes_fails_the_attempt(executor: Executor) -> None:
    assert _error(executor.run(lease("Note"))).startswith("ValidationError: ")


def test_a_type_that_no_module_has_any_more_fails_the_attempt(executor: Executor) -> None:
    assert _error(executor.run(lease("Gone"))).startswith("UnknownTaskType: unknown task type 'Gone': known are")


def test_a_result_over_the_limit_fails_the_attempt(executor: Executor) -> None:
    assert _error(executor.run(lease("Answer", how="large"))) == (
        "ResultRefused: the result is 2000002 bytes: at most 1024 are kept"
    )


def test_children_come_with_success_and_only_then(executor: Executor, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    parent = lease("Parent", ledger=ledger, n=1, failsUntil=1)
    again = (*parent[:2], 2, *parent[3:])

    failed, succeeded = executor.run(parent), executor.run(again)

    ((child_id, payload, options, delay_s, _),) = succeeded[7]
    assert failed[7] == []
    assert json.loads(succeeded[3]) == id_text(child_id)
    assert json.loads(payload) == {"ledger": ledger, "n": 2}
    assert (options.type, options.created_by, delay_s) == ("Note", f"task {id_text(parent[0])}", 0.0)


def _error(outcome: Outcome) -> str:
    assert not outcome[2]
    return outcome[4]
