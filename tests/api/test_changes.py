"""Changing one task that waits."""

from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import IDLE_QUEUE, Api
from tests.deployed import Ledger
from tests.eventually import eventually


@pytest.fixture
def waiting(api: Api) -> dict[str, Any]:
    (task,) = api.enqueue({"taskType": "CPUProcess", "payload": {"processType": "x"}, "queue": IDLE_QUEUE})
    return task


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"priority": 7}, {"priority": 7, "status": "queued"}),
        ({"queue": IDLE_QUEUE, "priority": -3}, {"queue": IDLE_QUEUE, "priority": -3}),
        ({"delay": "1h"}, {"status": "scheduled"}),
        ({"runAt": "2026-01-01T00:00:00Z"}, {"status": "queued"}),
    ],
)
def test_a_waiting_task_is_changed(
    api: Api, waiting: dict[str, Any], change: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = api.task(waiting["id"])

    response = api.http.patch(f"/task/{waiting['id']}", json=change)

    assert response.status_code == 200, response.text
    assert response.json().items() >= changed.items()
    assert api.task(waiting["id"]) == response.json()
    if "delay" not in change:
        assert response.json()["readyAt"] == before["readyAt"]


def test_a_moved_task_runs_where_it_was_moved_to(api: Api, waiting: dict[str, Any]) -> None:
    api.http.patch(f"/task/{waiting['id']}", json={"queue": "default"})
    assert api.ended(waiting["id"])["queue"] == "default"


def test_a_scheduled_task_runs_now(api: Api) -> None:
    (task,) = api.enqueue({"taskType": "CPUProcess", "payload": {"processType": "x"}, "delay": "1h"})
    response = api.http.patch(f"/task/{task['id']}", json={"runNow": True})
    assert response.json()["status"] in {"queued", "running", "retrying", "succeeded", "failed"}
    api.ended(task["id"])


def test_what_has_ended_is_refused_with_its_state(api: Api) -> None:
    (task,) = api.enqueue({"taskType": "CPUProcess", "payload": {"processType": "x"}, "backOffDuration": "1ms"})
    ended = api.ended(task["id"])

    response = api.http.patch(f"/task/{task['id']}", json={"priority": 1})

    assert response.status_code == 409
    assert f"is {ended['status']}: only a task that waits can be changed" in response.json()["error"]


def test_what_runs_is_refused_with_its_state(api: Api, ledger: Ledger, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (task,) = api.enqueue({"taskType": "Hold", "payload": {"ledger": ledger.path, "n": 1, "gate": str(gate)}})
    eventually(ledger.order)
    response = api.http.patch(f"/task/{task['id']}", json={"priority": 1})
    gate.touch()
    assert (response.status_code, "is running" in response.json()["error"]) == (409, True)


@pytest.mark.parametrize("task_id", ["019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7", "nonsense"])
def test_an_unknown_task_is_not_found(api: Api, task_id: str) -> None:
    assert api.http.patch(f"/task/{task_id}", json={"priority": 1}).status_code == 404


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({}, "", "name what is to be changed"),
        ({"priority": 101}, "priority", "Input should be less than or equal to 100"),
        ({"queue": "no spaces"}, "queue", "String should match pattern"),
        ({"delay": "10m", "runNow": True}, "runNow", "conflicts with delay: name one of runAt, delay, runNow"),
        ({"runNow": False}, "runNow", "Input should be True"),
        ({"runAt": "2099-01-01T00:00:00Z"}, "runAt", "must be within 366 days from now"),
        ({"delay": "-5s"}, "delay", "must be between 0s and"),
        ({"prio": 1}, "prio", "is not known: allowed are priority, queue, runAt, delay, runNow"),
    ],
)
def test_a_change_that_cannot_be_is_refused_by_field(
    api: Api, waiting: dict[str, Any], change: dict[str, Any], field: str, message: str
) -> None:
    response = api.http.patch(f"/task/{waiting['id']}", json=change)

    assert response.status_code == 400, response.text
    (problem,) = response.json()["errors"]
    assert problem["field"] == field
    assert problem["message"].startswith(message)


def test_what_is_no_json_is_refused(api: Api, waiting: dict[str, Any]) -> None:
    response = api.http.patch(f"/task/{waiting['id']}", content=b"{priority")
    assert (response.status_code, "the body is not JSON" in response.json()["error"]) == (400, True)
