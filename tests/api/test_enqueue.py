"""What becomes of tasks that are posted: all of a request or nothing, each of them run once."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from asyncproc.core.states import State
from tests.api.conftest import MAX_TASKS, Api
from tests.deployed import Ledger
from tests.eventually import eventually


def test_five_thousand_tasks_all_succeed_each_having_run_exactly_once(api: Api, ledger: Ledger) -> None:
    for first in range(0, 5_000, 100):
        api.enqueue(*(_note(ledger, n, createdBy="thousands") for n in range(first, first + 100)))

    eventually(lambda: len(ledger.order()) >= 5_000)
    # By way of the table: the answer of five thousand views is no part of this.
    tasks = eventually(lambda: _all_ended(api, "thousands"))
    assert {task.state for task in tasks} == {State.SUCCEEDED}
    assert len(tasks) == 5_000
    assert ledger.runs() == dict.fromkeys(range(5_000), 1)


async def test_many_single_enqueues_at_once_all_land(api: Api, ledger: Ledger, creator: str) -> None:
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as http:
        responses = await asyncio.gather(
            *(http.post("/tasks/enqueue", json={"tasks": [_note(ledger, n, createdBy=creator)]}) for n in range(200))
        )

    assert {response.status_code for response in responses} == {200}
    ids = {response.json()["tasks"][0]["id"] for response in responses}
    assert len(ids) == 200
    eventually(lambda: len(ledger.order()) >= 200)
    assert {task["id"] for task in api.listed(createdBy=creator, limit=1000)} == ids
    assert ledger.runs() == dict.fromkeys(range(200), 1)


def test_one_bad_task_keeps_its_whole_request_out(api: Api, ledger: Ledger, creator: str) -> None:
    tasks = [_note(ledger, n, createdBy=creator) for n in range(MAX_TASKS)]
    tasks[41]["payload"]["n"] = "no number"
    tasks[97]["taskType"] = "Nothing"

    response = api.http.post("/tasks/enqueue", json={"tasks": tasks})

    assert response.status_code == 400
    problems = response.json()["errors"]
    assert [(problem["index"], problem["field"]) for problem in problems] == [(41, "payload.n"), (97, "taskType")]
    assert response.json()["error"].startswith("tasks[41].payload.n: Input should be a valid integer")
    assert api.listed(createdBy=creator) == []


def test_a_task_is_kept_as_it_was_sent(api: Api, ledger: Ledger, creator: str) -> None:
    payload = {"ledger": ledger.path, "n": 7, "unknown": {"a": [1, 2.5, None, True, "é\n"]}, "N": 8}
    (posted,) = api.enqueue(
        {
            "taskType": "Note",
            "payload": payload,
            "priority": -7,
            "queue": "letters",
            "createdBy": creator,
            "backOffDuration": "1m30s",
        }
    )

    task = api.ended(posted["id"])

    assert task["payload"] == payload
    assert (task["priority"], task["queue"], task["createdBy"]) == (-7, "letters", creator)
    assert (task["backOffDuration"], task["maxAttempts"]) == ("1m30s", 4)
    assert (task["status"], task["result"], task["error"], task["errors"]) == ("succeeded", 7, None, [])
    times = [datetime.fromisoformat(task[name]) for name in ("createdAt", "readyAt", "startedAt", "finishedAt")]
    assert times == sorted(times)
    assert task["worker"].startswith("default-")


def test_a_delayed_task_is_scheduled_until_it_is_due(api: Api, ledger: Ledger) -> None:
    (posted,) = api.enqueue(_note(ledger, 1, delay="1h"))

    task = api.task(posted["id"])

    assert (posted["status"], task["status"]) == ("scheduled", "scheduled")
    assert _between(task, "createdAt", "readyAt") == timedelta(hours=1)
    assert ledger.order() == []


@pytest.mark.parametrize("spelling", ["tasktype", "TASKTYPE", "TaskType"])
def test_keys_are_matched_without_regard_to_case(api: Api, ledger: Ledger, spelling: str) -> None:
    body = {"Tasks": [{spelling: "Note", "Payload": {"LEDGER": ledger.path, "N": 3}, "PRIORITY": 2}]}

    response = api.http.post("/tasks/enqueue", json=body)

    (posted,) = response.json()["tasks"]
    assert posted["priority"] == 2
    assert api.ended(posted["id"])["result"] == 3


def test_numbers_that_no_float_holds_come_back_as_they_were_sent(api: Api, ledger: Ledger) -> None:
    large = 123456789012345678901234567890
    task = _note(ledger, 1)
    task["payload"]["large"] = large

    (posted,) = api.enqueue(task)

    assert api.task(posted["id"])["payload"]["large"] == large


def _note(ledger: Ledger, n: int, **fields: Any) -> dict[str, Any]:
    return {"taskType": "Note", "payload": {"ledger": ledger.path, "n": n}, **fields}


def _all_ended(api: Api, creator: str) -> list[Any] | None:
    tasks = api.system.tasks(created_by=creator)
    return tasks if all(task.finished_at is not None for task in tasks) else None


def _between(task: dict[str, Any], one: str, other: str) -> timedelta:
    return datetime.fromisoformat(task[other]) - datetime.fromisoformat(task[one])


def test_keys_are_made_of_the_payload_where_a_type_says_so(api: Api) -> None:
    payload = {"customer": {"name": "ada"}}
    made, own = api.enqueue(
        {"taskType": "Keyed", "payload": payload, "delay": "1h"},
        {"taskType": "Keyed", "payload": payload, "delay": "1h", "concurrencyKey": "own", "fairnessKey": "own"},
    )
    seen = [api.task(task["id"]) for task in (made, own)]
    assert [(task["concurrencyKey"], task["fairnessKey"]) for task in seen] == [("ada", "shared"), ("own", "own")]
    for task in seen:
        api.http.post(f"/task/{task['id']}/cancel")
