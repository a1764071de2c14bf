"""Many tasks by filter, dead letters, and why a task waits, over HTTP."""

from typing import Any

import pytest

from tests.api.conftest import IDLE_QUEUE, Api
from tests.eventually import eventually

FAILING = {"taskType": "CPUProcess", "payload": {"processType": "want to fail"}, "backOffDuration": "1ms"}


def idle(api: Api, creator: str, number: int, **fields: Any) -> list[str]:
    task = {"taskType": "CPUProcess", "payload": {"processType": "x"}, "queue": IDLE_QUEUE, "createdBy": creator}
    return [task["id"] for task in api.enqueue(*[task | fields for _ in range(number)])]


def failed(api: Api, creator: str, number: int) -> list[str]:
    tasks = api.enqueue(*[FAILING | {"createdBy": creator} for _ in range(number)])
    for task in tasks:
        assert api.ended(task["id"])["status"] == "failed"
    return [task["id"] for task in tasks]


def operated(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The operation when it is done."""
    response = api.http.post(path, json=body)
    assert response.status_code == 202, response.text
    operation = response.json()
    assert operation["state"] == "running" or operation["matched"]

    def done() -> dict[str, Any] | None:
        found: dict[str, Any] = api.http.get(f"/operations/{operation['id']}").json()
        return found if found["state"] == "done" else None

    return eventually(done)


@pytest.mark.parametrize(
    ("action", "changed"),
    [
        ({"action": "changePriority", "priority": 9}, {"priority": 9, "status": "queued"}),
        ({"action": "move", "queue": "default"}, {"queue": "default"}),
        ({"action": "postpone", "delay": "1h"}, {"status": "scheduled"}),
        ({"action": "postpone", "runAt": "2026-01-01T00:00:00Z"}, {"status": "queued"}),
        ({"action": "runNow"}, {"status": "queued"}),
        ({"action": "cancel"}, {"status": "cancelled"}),
    ],
)
def test_all_that_matches_is_changed_and_nothing_else(
    api: Api, creator: str, action: dict[str, Any], changed: dict[str, Any]
) -> None:
    meant, other = idle(api, creator, 20), idle(api, f"not {creator}", 1)
    untouched = api.task(other[0])

    operation = operated(api, "/tasks/bulk", {**action, "filter": {"createdBy": creator}})

    assert (operation["matched"], operation["done"], operation["skipped"]) == (20, 20, 0)
    for task_id in meant:
        assert api.task(task_id).items() >= changed.items()
    assert api.task(other[0]) == untouched


def test_a_dry_run_counts_and_changes_nothing(api: Api, creator: str) -> None:
    (task,) = idle(api, creator, 1)
    body = {"action": "cancel", "filter": {"createdBy": creator, "queue": [IDLE_QUEUE, "default"]}, "dryRun": True}

    response = api.http.post("/tasks/bulk", json=body)

    assert (response.status_code, response.json()) == (
        200,
        {"action": "cancel", "dryRun": True, "matched": 1, "estimated": False},
    )
    assert api.task(task)["status"] == "queued"


def test_an_operation_is_listed_and_can_be_cancelled_while_it_runs(api: Api, creator: str) -> None:
    idle(api, creator, 20)
    body = {"action": "changePriority", "priority": 1, "filter": {"createdBy": creator}, "rate": "1/h"}
    operation = api.http.post("/tasks/bulk", json=body).json()
    eventually(lambda: api.http.get(f"/operations/{operation['id']}").json()["done"] == 1)

    cancelled = api.http.post(f"/operations/{operation['id']}/cancel")

    assert (cancelled.status_code, cancelled.json()["state"], cancelled.json()["done"]) == (200, "cancelled", 1)
    assert cancelled.json() in api.http.get("/operations").json()["operations"]
    again = api.http.post(f"/operations/{operation['id']}/cancel")
    assert (again.status_code, "is cancelled already" in again.json()["error"]) == (409, True)
    assert len(api.listed(createdBy=creator, priority=1)) == 1


@pytest.mark.parametrize("operation_id", ["019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7", "nonsense"])
def test_an_unknown_operation_is_not_found(api: Api, operation_id: str) -> None:
    assert api.http.get(f"/operations/{operation_id}").status_code == 404
    assert api.http.post(f"/operations/{operation_id}/cancel").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "field", "message"),
    [
        ({"action": "cancel"}, 400, "filter", "asks for nothing: cancel of all tasks must be said by"),
        ({"action": "cancel", "filter": {}}, 400, "filter", "asks for nothing"),
        ({"action": "cancel", "filter": {"queue": "idle"}, "all": True}, 400, "all", "conflicts with filter"),
        ({"action": "burn"}, 400, "action", "Input should be 'retry', 'cancel', 'delete', "),
        ({"filter": {"queue": "idle"}}, 400, "action", "Field required"),
        ({"action": "move", "filter": {"queue": "idle"}}, 400, "queue", "move wants queue"),
        (
            {"action": "move", "queue": "x", "priority": 1, "filter": {"queue": "idle"}},
            400,
            "priority",
            "is not for move",
        ),
        ({"action": "cancel", "filter": {"queue": "nowhere"}}, 400, "filter.queue", "there is no queue 'nowhere'"),
        ({"action": "cancel", "filter": {"createdBy": "nobody"}}, 404, "filter", "nothing matches: no such task is"),
        (
            {"action": "cancel", "filter": {"state": "failed"}},
            400,
            "filter.state",
            "cancel is for tasks that are",
        ),
        ({"action": "retry", "filter": {"state": "queued"}}, 400, "filter.state", "retry is for"),
        ({"action": "cancel", "filter": {"colour": "red"}}, 400, "filter.colour", "is not known: allowed are state, "),
        (
            {"action": "retry", "filter": {"queue": "idle"}, "rate": "fast"},
            400,
            "rate",
            "must be a number of",
        ),
        ({"action": "cancel", "filter": {"type": "a\x00b"}}, 400, "filter.type", "contains NUL"),
    ],
)
def test_what_cannot_be_done_is_refused_by_field(
    api: Api, body: dict[str, Any], status: int, field: str, message: str
) -> None:
    response = api.http.post("/tasks/bulk", json=body)

    assert response.status_code == status, response.text
    (problem,) = response.json()["errors"]
    assert problem["field"] == field
    assert problem["message"].startswith(message)


def test_finished_tasks_are_deleted(api: Api, creator: str) -> None:
    (task,) = failed(api, creator, 1)
    (waiting,) = idle(api, creator, 1)
    assert operated(api, "/tasks/bulk", {"action": "delete", "filter": {"createdBy": creator}})["done"] == 1
    assert api.http.get(f"/task/{task}").status_code == 404
    assert api.task(waiting)["status"] == "queued"


# ---- dead letters


def test_failed_tasks_are_listed_grouped_and_run_again(api: Api, creator: str) -> None:
    ids = failed(api, creator, 3)
    idle(api, creator, 1)
    listed = api.http.get("/dead-letters", params={"createdBy": creator}).json()["tasks"]
    assert [task["id"] for task in listed] == ids[::-1]

    (group,) = api.http.get("/dead-letters/groups", params={"createdBy": creator}).json()["groups"]
    assert (group["taskType"], group["count"], group["example"]) == ("CPUProcess", 3, ids[-1])
    assert group["error"] == listed[0]["error"]

    wanted = {"createdBy": creator, "fingerprint": group["fingerprint"]}
    operation = operated(api, "/dead-letters/redrive", {"filter": wanted, "rate": "1000/s"})
    assert (operation["action"], operation["done"], operation["rate"]) == ("retry", 3, 1000.0)
    # All of its attempts are counted anew, and the errors of the first ones are kept.
    eventually(lambda: all(len(_failed_again(api, task_id)) == 8 for task_id in ids))


def _failed_again(api: Api, task_id: str) -> list[Any]:
    task = api.task(task_id)
    return list(task["errors"]) if task["status"] == "failed" else []


def test_failed_tasks_are_discarded(api: Api, creator: str) -> None:
    ids = failed(api, creator, 2)
    assert operated(api, "/dead-letters/discard", {"filter": {"createdBy": creator}})["done"] == 2
    assert [api.http.get(f"/task/{task_id}").status_code for task_id in ids] == [404, 404]


@pytest.mark.parametrize("path", ["redrive", "discard"])
def test_all_dead_letters_must_be_said(api: Api, path: str) -> None:
    for body in ({}, {"filter": {"state": "failed"}}):
        response = api.http.post(f"/dead-letters/{path}", json=body)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "filter")
    response = api.http.post(f"/dead-letters/{path}", json={"filter": {"state": "queued"}})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "filter.state")


# ---- explain


def test_a_task_without_a_worker_says_so_and_where_it_stands(api: Api, creator: str) -> None:
    ids = idle(api, creator, 3, priority=-50)

    first, last = (api.http.get(f"/task/{task_id}/explain").json() for task_id in (ids[0], ids[2]))

    assert (last["status"], last["queue"], last["pool"], last["slots"]) == ("queued", IDLE_QUEUE, "nobody", 0)
    assert last["position"] == first["position"] + 2
    assert last["position"] == 1 + sum(ahead["count"] for ahead in last["ahead"])
    (reason,) = last["reasons"]
    assert (reason["kind"], reason["name"], last["estimatedStart"]) == ("pool", "nobody", None)


def test_a_task_that_waits_for_its_instant_says_when(api: Api) -> None:
    (task,) = api.enqueue({"taskType": "CPUProcess", "payload": {"processType": "x"}, "delay": "1h"})
    explained = api.http.get(f"/task/{task['id']}/explain").json()
    (reason,) = explained["reasons"]
    assert (reason["kind"], reason["until"], explained["position"]) == ("instant", explained["estimatedStart"], None)
    assert reason["until"] == api.task(task["id"])["readyAt"]


def test_what_has_ended_has_nothing_to_explain(api: Api, creator: str) -> None:
    (task,) = failed(api, creator, 1)
    explained = api.http.get(f"/task/{task}/explain").json()
    assert (explained["status"], explained["reasons"], explained["position"]) == ("failed", [], None)


def test_an_unknown_task_cannot_be_explained(api: Api) -> None:
    assert api.http.get("/task/019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7/explain").status_code == 404
