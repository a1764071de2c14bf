import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from asyncproc.clock import TaskIds, id_text
from asyncproc.core.record import TaskRecord
from asyncproc.core.states import State
from asyncproc.wire import EnqueueBody, TaskBody, TaskView, view

RECORD = TaskRecord(
    id=TaskIds().make(),
    type="Note",
    queue="default",
    state=State.RUNNING,
    priority=3,
    attempt=1,
    max_attempts=4,
    created_at=1_800_000_000.25,
    ready_at=1_800_000_000.25,
    started_at=1_800_000_001.000001,
    created_by="me",
    backoff_s=0.05,
    timeout_s=90.0,
    soft_timeout_s=0.0,
    worker="default-1.x",
    error=None,
    concurrency_key="",
    fairness_key="ada",
    start_by=None,
    deadline=1_800_000_600.0,
    origins="tfscc",
    depends_on=(TaskIds().make(),),
    depends_on_count=1,
    on_parent_failure="skip",
    resources="",
    errors=b"[]",
    payload=b'{"a": 1e5000}',
    finished_at=None,
    result=None,
)


def test_a_view_passes_payload_and_result_as_the_text_they_are() -> None:
    text = view(replace(RECORD, result=b'{"b" : 123456789012345678901234567890}'))

    assert b'"payload":{"a": 1e5000},' in text
    assert b'"result":{"b" : 123456789012345678901234567890},' in text


def test_a_view_is_what_its_model_describes() -> None:
    body = json.loads(view(replace(RECORD, payload=b"{}")))

    assert body.keys() == {field.alias for field in TaskView.model_fields.values()}
    TaskView.model_validate(body)
    assert (body["id"], body["status"], body["backOffDuration"]) == (id_text(RECORD.id), "running", "50ms")
    assert (body["createdAt"], body["startedAt"]) == ("2027-01-15T08:00:00.250000Z", "2027-01-15T08:00:01.000001Z")
    assert (body["finishedAt"], body["result"]) == (None, None)


@pytest.mark.parametrize("duration", ["5s", "1m30s", "250ms", "1.5h", "0", "0s", "24h"])
def test_a_back_off_is_in_the_syntax_of_go(duration: str) -> None:
    assert TaskBody.model_validate({"taskType": "t", "backOffDuration": duration}).back_off_duration == duration


@pytest.mark.parametrize("duration", ["", "5", "s", "5 s", "-5s", "25h", "1e3s", "nan", "infs", "9" * 65 + "s"])
def test_what_is_no_back_off_is_refused(duration: str) -> None:
    with pytest.raises(ValidationError):
        TaskBody.model_validate({"taskType": "t", "backOffDuration": duration})


@pytest.mark.parametrize("priority", [-100, 0, 1, 100])
def test_priorities_are_whole_numbers_from_minus_to_plus_100(priority: int) -> None:
    assert TaskBody.model_validate({"taskType": "t", "priority": priority}).priority == priority


def test_a_request_holds_at_least_one_task() -> None:
    with pytest.raises(ValidationError):
        EnqueueBody.model_validate({"tasks": []})


def test_a_view_names_who_said_what_a_task_may_leave_to_others() -> None:
    found = json.loads(view(RECORD))

    assert (found["concurrencyKey"], found["fairnessKey"]) == (None, "ada")
    assert found["origins"] == {
        "priority": "task",
        "maxAttempts": "config",
        "backOffDuration": "stored",
        "timeout": "code",
        "softTimeout": "code",
    }
    assert json.loads(view(replace(RECORD, origins="")))["origins"] == {}, "of a release that did not write them"
