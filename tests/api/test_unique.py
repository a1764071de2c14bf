"""Tasks that are the only ones with their key, however many ask for them at once."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import IDLE_QUEUE, Api
from tests.api.test_commands import Terminal
from tests.deployed import Ledger
from tests.eventually import eventually


def a_task(creator: str, **changes: Any) -> dict[str, Any]:
    """One that waits for ever."""
    return {
        "taskType": "CPUProcess",
        "payload": {"processType": "good"},
        "queue": IDLE_QUEUE,
        "createdBy": creator,
        "unique": {"key": creator},
        **changes,
    }


def post(api: Api, *tasks: dict[str, Any], key: str = "") -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return api.http.post("/tasks/enqueue", json={"tasks": list(tasks)}, headers=headers)


def test_of_many_clients_at_once_one_makes_the_task_and_all_are_told_of_it(api: Api, creator: str) -> None:
    def send(number: int) -> list[dict[str, Any]]:
        keys = {"Idempotency-Key": f"{creator}-{number}"} if number % 4 == 0 else {}
        with httpx.Client(base_url=api.url, timeout=60) as http:
            task = a_task(creator, unique={"key": creator, "onConflict": "return"})
            answers = [http.post("/tasks/enqueue", json={"tasks": [task]}, headers=keys) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        return [answer.json()["tasks"][0] for answer in answers]

    with ThreadPoolExecutor(32) as threads:
        told = [task for tasks in threads.map(send, range(32)) for task in tasks]

    (listed,) = api.listed(createdBy=creator)
    assert {task["id"] for task in told} == {listed["id"]}
    # An idempotency key gets its first answer again: it may be the one that made the task.
    assert Counter(task["existing"] for task in told)[False] in {1, 5}
    assert listed["uniqueKey"] == creator


def test_of_many_that_race_with_reject_one_is_taken_and_the_others_learn_which(api: Api, creator: str) -> None:
    def send(number: int) -> httpx.Response:
        with httpx.Client(base_url=api.url, timeout=60) as http:
            other = a_task(creator, unique=False, payload={"processType": f"{number}"})
            mine = a_task(creator, unique={"key": creator, "onConflict": "reject"})
            return http.post("/tasks/enqueue", json={"tasks": [other, mine]})

    with ThreadPoolExecutor(16) as threads:
        responses = list(threads.map(send, range(16)))

    (taken,) = [response for response in responses if response.status_code == 200]
    task_id = taken.json()["tasks"][1]["id"]
    for refused in (response for response in responses if response is not taken):
        assert refused.status_code == 409
        (problem,) = refused.json()["errors"]
        assert (problem["index"], problem["field"]) == (1, "unique")
        assert task_id in problem["message"]
        assert task_id in refused.json()["error"]
    assert len(api.listed(createdBy=creator)) == 2


def test_a_key_is_free_again_once_its_task_has_ended(api: Api, ledger: Ledger, creator: str) -> None:
    task = a_task(creator, taskType="Note", payload={"ledger": ledger.path, "n": 1}, queue="default")
    (first,) = api.enqueue(task)
    api.ended(first["id"])

    (second,) = api.enqueue(task)
    api.ended(second["id"])
    (within_the_hour,) = api.enqueue({**task, "unique": {"key": creator, "period": "1h"}})
    (within_a_moment,) = api.enqueue({**task, "unique": {"key": creator, "period": "1us"}})

    assert second["id"] != first["id"]
    assert within_the_hour == {**second, "existing": True, "status": "succeeded", "id": within_the_hour["id"]}
    assert within_the_hour["id"] in {first["id"], second["id"]}
    assert (within_a_moment["existing"], within_a_moment["id"] not in {first["id"], second["id"]}) == (False, True)


def test_one_runs_and_one_waits(api: Api, ledger: Ledger, creator: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    payload = {"ledger": ledger.path, "n": 1, "gate": str(gate)}
    task = a_task(creator, taskType="Hold", payload=payload, queue="default")
    task |= {"concurrencyKey": creator, "unique": {"key": creator, "states": "waiting"}}
    (runs,) = api.enqueue(task)
    eventually(lambda: api.task(runs["id"])["status"] == "running")

    answers = [api.enqueue(task)[0] for _ in range(3)]
    gate.touch()

    assert [answer["existing"] for answer in answers] == [False, True, True]
    (waits,) = {answer["id"] for answer in answers}
    assert waits != runs["id"]
    assert {api.ended(task_id)["status"] for task_id in (runs["id"], waits)} == {"succeeded"}


def test_payloads_are_compared_as_their_model_has_them(api: Api, ledger: Ledger, creator: str) -> None:
    def task(payload: dict[str, Any], **unique: Any) -> dict[str, Any]:
        return a_task(creator, taskType="Note", payload={"ledger": creator, **payload}, unique=unique)

    whole = [api.enqueue(task({key: n}))[0] for key, n in (("n", 1), ("N", 1), ("n", 2))]
    by_field = [api.enqueue(task({"n": n}, fields=[path]))[0] for path, n in (("n", 1), ("N", 1), ("n", 3))]
    by_both = [api.enqueue(task({"n": 1}, fields=fields))[0] for fields in (["n", "ledger"], ["ledger", "n"])]

    for first, same, other in (whole, by_field):
        assert (first["existing"], same["existing"], other["existing"]) == (False, True, False)
        assert first["id"] == same["id"] != other["id"]
    assert by_both[0]["id"] == by_both[1]["id"] != by_field[0]["id"]


def test_a_type_says_in_code_what_makes_its_tasks_unique_and_a_task_may_say_otherwise(
    api: Api, ledger: Ledger, creator: str
) -> None:
    task = {"taskType": "NoteOnce", "payload": {"ledger": ledger.path, "n": 1}, "createdBy": creator}
    (first,) = api.enqueue(task)
    api.ended(first["id"])

    (again,) = api.enqueue({**task, "payload": {"ledger": "elsewhere", "n": 1}})
    (anyway,) = api.enqueue({**task, "unique": False})

    assert (again["id"], again["existing"], again["status"]) == (first["id"], True, "succeeded")
    assert "existing" not in anyway
    api.ended(anyway["id"])
    assert ledger.runs() == {1: 2}


def test_an_idempotency_key_gets_the_answer_that_named_the_other(api: Api, creator: str) -> None:
    (other,) = api.enqueue(a_task(creator))
    mine = [a_task(creator), a_task(creator, unique={"key": f"{creator}-2"})]

    first, again = post(api, *mine, key=creator), post(api, *mine, key=creator)

    assert first.status_code == 200
    assert first.content == again.content
    assert [task["existing"] for task in first.json()["tasks"]] == [True, False]
    assert first.json()["tasks"][0]["id"] == other["id"]
    assert post(api, a_task(creator), key=creator).status_code == 422


@pytest.mark.parametrize(
    ("unique", "field", "said"),
    [
        (True, "unique", "valid dictionary"),
        ({"keys": "k"}, "unique.keys", "not permitted"),
        ({"key": ""}, "unique.key", "at least 1"),
        ({"key": "k" * 201}, "unique.key", "at most 200"),
        ({"key": "a\x00"}, "unique.key", "NUL"),
        ({"key": "k", "fields": ["a"]}, "unique", "cannot both be given"),
        ({"fields": []}, "unique.fields", "at least 1"),
        ({"fields": ["nothing"]}, "unique.fields", "there are processType"),
        ({"fields": ["processType.deeper"]}, "unique.fields", "is no object"),
        ({"states": []}, "unique", "at least one must be given"),
        ({"states": ["over"]}, "unique.states[0]", "'waiting' or 'unfinished'"),
        ({"period": "0s"}, "unique.period", "more than 0s"),
        ({"period": "soon"}, "unique.period", "must be a duration"),
        ({"onConflict": "fight"}, "unique.onConflict", "'return'"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused_by_name(
    api: Api, creator: str, unique: Any, field: str, said: str
) -> None:
    refused = post(api, a_task(creator, unique=False), a_task(creator, unique=unique))

    assert refused.status_code == 400
    problem = refused.json()["errors"][0]
    assert (problem["index"], problem["field"]) == (1, field)
    assert said in problem["message"]
    assert api.listed(createdBy=creator) == []


def test_the_command_asks_for_it(api: Api, creator: str) -> None:
    terminal = Terminal(api.url)
    task = ("tasks", "enqueue", "CPUProcess", '{"processType": "x"}', "--queue", IDLE_QUEUE, "--created-by", creator)

    (first,) = terminal.json(*task, "--unique-key", creator)["tasks"]
    table = terminal.text(*task, "--unique-key", creator, "--unique-state", "waiting", "--on-conflict", "return")
    (by_field,) = terminal.json(*task, "--unique-field", "processType", "--unique-period", "1h")["tasks"]
    (plain,) = terminal.json(*task, "--not-unique")["tasks"]

    assert table.split()[-1] == "yes"
    assert first["id"] in table
    assert by_field["existing"] is False
    assert "existing" not in plain
    assert json.loads(terminal.text("tasks", "show", first["id"], "--json"))["uniqueKey"] == creator


def test_many_that_replace_at_once_leave_one_task_with_what_one_of_them_brought(api: Api, creator: str) -> None:
    replacing = {"key": creator, "onConflict": "replace"}
    (first,) = api.enqueue(a_task(creator, unique=replacing, priority=1))

    def send(number: int) -> dict[str, Any]:
        body = a_task(creator, unique=replacing, payload={"processType": f"{number}"}, delay="1h", timeout="30s")
        with httpx.Client(base_url=api.url, timeout=60) as http:
            answer = http.post("/tasks/enqueue", json={"tasks": [body]})
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["tasks"][0])

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(send, range(24)))

    (task,) = api.listed(createdBy=creator)
    assert {(one["id"], one["existing"], one["replaced"], one["status"]) for one in told} == {
        (first["id"], True, True, "scheduled")
    }
    assert (task["id"], task["priority"], task["timeout"], task["status"]) == (first["id"], 0, "30s", "scheduled")
    assert task["payload"]["processType"] in {f"{number}" for number in range(24)}


def test_one_that_has_ended_is_not_replaced(api: Api, ledger: Ledger, creator: str) -> None:
    unique = {"key": creator, "states": ["unfinished", "succeeded"], "onConflict": "replace"}
    task = a_task(creator, taskType="Note", payload={"ledger": ledger.path, "n": 1}, queue="default", unique=unique)
    (first,) = api.enqueue(task)
    api.ended(first["id"])

    (again,) = api.enqueue({**task, "payload": {"ledger": ledger.path, "n": 2}})

    assert (again["id"], again["existing"], again["status"]) == (first["id"], True, "succeeded")
    assert "replaced" not in again
    assert ledger.runs() == {1: 1}


def test_a_failed_task_is_not_run_again_beside_another_with_its_key(api: Api, creator: str) -> None:
    failing = {"payload": {"processType": "want to fail"}, "queue": "default", "backOffDuration": "0s"}
    failed = [api.enqueue(a_task(creator, **failing))[0]["id"]]
    assert api.ended(failed[0])["status"] == "failed"
    failed += [task["id"] for task in api.enqueue(a_task(creator, **failing))]
    assert api.ended(failed[1])["status"] == "failed"
    (waiting,) = api.enqueue(a_task(creator))

    refused = api.http.post(f"/task/{failed[0]}/retry")
    redriven = redrive(api, creator)
    api.http.post(f"/task/{waiting['id']}/cancel")
    later = redrive(api, creator)

    assert (refused.status_code, waiting["id"] in refused.json()["error"]) == (409, True)
    assert (redriven["matched"], redriven["done"], redriven["skipped"]) == (2, 0, 2)
    # Of two that have one key one goes first.
    assert (later["done"], later["skipped"]) == (1, 1)
    for task_id in failed:
        api.ended(task_id)


def redrive(api: Api, creator: str) -> dict[str, Any]:
    asked = {"filter": {"createdBy": creator}}
    operation = api.http.post("/dead-letters/redrive", json=asked).json()["id"]
    return eventually(
        lambda: found if (found := api.http.get(f"/operations/{operation}").json())["state"] == "done" else None
    )
