"""The requests of the seed's README, to the letter: its clients work unchanged."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import pytest

from asyncproc.clock import TaskIds, id_text
from tests.api.conftest import Api
from tests.eventually import eventually

BODY: Final = """{
  "tasks" : [
    {
      "taskType" : "SendEmail",
      "payload": {
        "sendTo" : ["helloworld@test.com", "helloWorld2@test.com"],
        "sendFrom": "hello1@test.com",
        "subject" : "Hi !",
        "body" : "hope you are well"
      }
    },
    {
      "taskType" : "GenerateReport",
      "priority" : 1,
      "payload" : {
        "notify" : ["helloworld@test.com", "helloWorld2@test.com"],
        "reportType" : "Financial Report"
      }
    },
    {
      "taskType" : "CPUProcess",
      "priority" : 1,
      "payload" : {
        "ProcessType" : "want to fail"
      },
      "backOffDuration" : "5s"
    }
  ]
}"""
RETRIES: Final = 3

ROUNDED = timedelta(microseconds=1)
"""Instants are kept in microseconds, each rounded by itself."""


@pytest.fixture(scope="module")
def posted(api: Api) -> list[dict[str, Any]]:
    response = api.http.post("/tasks/enqueue", content=BODY, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    answer = response.json()
    assert answer.keys() == {"tasks", "status"}
    assert answer["status"] == "enqueued"
    return list(answer["tasks"])


def test_the_service_says_that_it_is_up(api: Api) -> None:
    healthy = {"status": "healthy", "queueActor": "ok", "workers": "2 answer", "postgres": "ok"}
    # The second worker may still be on its way; a pool that another test asked for may be warned of.
    eventually(lambda: healthy.items() <= api.http.get("/healthz").json().items())
    assert api.http.get("/healthz").status_code == 200


def test_an_enqueue_is_answered_with_its_tasks_in_their_order(posted: list[dict[str, Any]]) -> None:
    assert [(task["taskType"], task["priority"], task["status"]) for task in posted] == [
        ("SendEmail", 0, "queued"),
        ("GenerateReport", 1, "queued"),
        ("CPUProcess", 1, "queued"),
    ]
    ids = [UUID(task["id"]) for task in posted]
    assert {task_id.version for task_id in ids} == {7}
    assert ids == sorted(ids)


def test_an_email_without_a_mail_server_succeeds_and_says_that_it_was_only_logged(
    api: Api, posted: list[dict[str, Any]]
) -> None:
    task = api.ended(posted[0]["id"])

    assert task["status"] == "succeeded"
    assert task["result"] == {"delivered": 0, "loggedOnly": True}
    assert task["payload"] == {
        "sendTo": ["helloworld@test.com", "helloWorld2@test.com"],
        "sendFrom": "hello1@test.com",
        "subject": "Hi !",
        "body": "hope you are well",
    }


def test_a_report_is_made_and_mailed_to_those_it_concerns(api: Api, posted: list[dict[str, Any]]) -> None:
    report = posted[1]["id"]

    task = api.ended(report)

    assert task["status"] == "succeeded"
    assert task["result"]["reportType"] == "Financial Report"
    assert task["result"]["tasks"] == sum(task["result"]["byState"].values()) >= 1
    (mail,) = api.listed(createdBy=f"task {report}")
    assert mail["taskType"] == "SendEmail"
    assert mail["payload"]["sendTo"] == ["helloworld@test.com", "helloWorld2@test.com"]
    assert mail["payload"]["body"] == task["result"]["text"]
    assert api.ended(mail["id"])["status"] == "succeeded"


def test_a_task_that_fails_on_purpose_waits_its_back_off(api: Api, posted: list[dict[str, Any]]) -> None:
    task = eventually(lambda: found if (found := api.task(posted[2]["id"]))["status"] == "retrying" else None)

    assert (task["attempt"], task["maxAttempts"], task["backOffDuration"]) == (1, 1 + RETRIES, "5s")
    assert task["error"] == "FailsOnPurpose: CPUProcess 'want to fail' fails on purpose (attempt 1)"
    (error,) = task["errors"]
    waits = instant(task["readyAt"]) - instant(error["failedAt"])
    # Each of the two is rounded to a microsecond by itself.
    assert abs(waits - timedelta(seconds=5)) <= ROUNDED


@pytest.mark.parametrize("spelling", ["processType", "ProcessType"])
def test_a_failing_task_is_retried_so_often_and_so_far_apart_and_then_failed(api: Api, spelling: str) -> None:
    (posted,) = api.enqueue({"taskType": "CPUProcess", "payload": {spelling: "fail"}, "backOffDuration": "50ms"})

    task = api.ended(posted["id"])

    assert (task["status"], task["attempt"]) == ("failed", 1 + RETRIES)
    assert task["error"] == f"FailsOnPurpose: CPUProcess 'fail' fails on purpose (attempt {1 + RETRIES})"
    errors = task["errors"]
    assert [error["attempt"] for error in errors] == [1, 2, 3, 4]
    assert {error["type"] for error in errors} == {"FailsOnPurpose"}
    for before, after in pairwise(errors):
        assert instant(after["startedAt"]) - instant(before["failedAt"]) >= timedelta(milliseconds=50) - ROUNDED
    waited = instant(task["readyAt"]) - instant(errors[-2]["failedAt"])
    assert abs(waited - timedelta(milliseconds=50)) <= ROUNDED
    assert instant(task["finishedAt"]) == instant(errors[-1]["failedAt"])


def test_a_retry_runs_a_failed_task_again(api: Api) -> None:
    (posted,) = api.enqueue({"taskType": "CPUProcess", "payload": {"processType": "x"}, "backOffDuration": "1ms"})
    api.ended(posted["id"])

    response = api.http.post(f"/task/{posted['id']}/retry", content="")

    assert response.status_code == 200
    assert response.json()["id"] == posted["id"]
    assert response.json()["status"] != "succeeded"
    task = eventually(lambda: found if len((found := api.ended(posted["id"]))["errors"]) == 8 else None)
    assert [error["attempt"] for error in task["errors"]] == [1, 2, 3, 4] * 2


def test_only_a_failed_task_can_be_retried(api: Api, posted: list[dict[str, Any]]) -> None:
    api.ended(posted[0]["id"])

    response = api.http.post(f"/task/{posted[0]['id']}/retry")

    assert response.status_code == 400
    assert response.json() == {"error": f"only failed tasks can be retried: task {posted[0]['id']} is succeeded"}


@pytest.mark.parametrize(
    "task_id", [id_text(TaskIds().make()), "e83a5116-0191-462c-8cf7-18c21a3a4939", "7", "%00", "x" * 999], ids=range(5)
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/task/{}"), ("POST", "/task/{}/retry")])
def test_an_unknown_task_is_not_found(api: Api, method: str, path: str, task_id: str) -> None:
    response = api.http.request(method, path.format(task_id))

    assert response.status_code == 404
    assert response.json()["error"].startswith("there is no task ")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
