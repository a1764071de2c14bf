"""Queues as resources: settings, pauses, drains and purges, in force as soon as they are answered."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api
from tests.deployed import Ledger
from tests.eventually import eventually

_numbers = count()
NOOP = {"taskType": "CPUProcess", "payload": {"processType": "x"}, "backOffDuration": "1ms"}


@pytest.fixture
def queue(api: Api) -> Iterator[str]:
    """A queue that no other test uses."""
    name = f"q{next(_numbers)}"
    created = api.http.post("/queues", json={"name": name})
    assert created.status_code == 201, created.text
    yield name
    api.http.post(f"/queues/{name}/resume")
    api.http.post(f"/queues/{name}/purge")


def ask(api: Api, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    response = api.http.request(method, path, json=body)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def setting(api: Api, queue: str, key: str) -> tuple[Any, str]:
    found = ask(api, "GET", f"/queues/{queue}")["settings"][key]
    return found["value"], found["from"]


def test_a_queue_is_created_changed_and_deleted(api: Api) -> None:
    made = ask(api, "POST", "/queues", {"name": "made", "weight": 2, "timeout": "90s"}, 201)
    assert made["settings"]["weight"] == {"value": 2, "from": "stored"}
    assert made["settings"]["timeout"] == {"value": "1m30s", "from": "stored"}
    assert made["settings"]["aging"] == {"value": "1m", "from": "code"}
    assert made["settings"]["maxTaskRetry"] == {"value": 3, "from": "config"}

    ask(api, "PATCH", "/queues/made", {"weight": 5, "timeout": None, "aging": "off"})
    assert setting(api, "made", "weight") == (5, "stored")
    assert setting(api, "made", "timeout") == ("0s", "code")
    assert setting(api, "made", "aging") == ("off", "stored")

    ask(api, "PUT", "/queues/made", {"maxRunning": 3, "backOff": {"base": "2s"}, "retentionFailed": "off"})
    assert setting(api, "made", "retentionFailed") == ("off", "stored")
    assert setting(api, "made", "retentionSucceeded") == ("168h", "code")
    assert setting(api, "made", "weight") == (1, "code")
    assert setting(api, "made", "maxRunning") == (3, "stored")
    assert setting(api, "made", "backOff")[0]["base"] == "2s"

    ask(api, "DELETE", "/queues/made", status=204)
    assert "there is no queue made" in ask(api, "GET", "/queues/made", status=404)["error"]


def test_a_queue_that_is_there_is_not_created(api: Api, queue: str) -> None:
    assert "PATCH" in ask(api, "POST", "/queues", {"name": queue, "weight": 2}, 409)["error"]
    ask(api, "POST", "/queues", {"name": queue}, 201)  # sent again: its answer may have been lost


def test_a_queue_that_nobody_named_is_not_changed_by_a_typing_error(api: Api) -> None:
    for method, path in (("PATCH", ""), ("POST", "/pause"), ("POST", "/drain"), ("POST", "/purge"), ("DELETE", "")):
        assert "there is no queue no-such" in ask(api, method, f"/queues/no-such{path}", {}, 404)["error"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"weight": 0}, "weight: Input should be greater than or equal to 1"),
        ({"weigth": 2}, "weigth: is not known: allowed are priority"),
        ({"maxRunning": 0}, "maxRunning: must be 1 or more, or off"),
        ({"aging": "1 minute"}, "aging: must be a duration"),
        ({"retentionFailed": "5s"}, "retentionFailed: Input should be greater than or equal to 3600"),
        ({"retentionFailed": "for long"}, "retentionFailed: must be a duration such as 7d or 36h, or off"),
        ({"timeout": "-5s"}, "timeout: Input should be greater than or equal to 0"),
        ({"pool": "no-such"}, "pool: there is no pool 'no-such': known are "),
        ({"fairnessWeights": {"a": 0}}, "fairnessWeights.a"),
        ({"fairnessWeights": {"a\x00": 1}}, "contains NUL"),
        ([], "Input should be an object"),
    ],
)
def test_settings_that_cannot_be_are_named(api: Api, queue: str, body: Any, problem: str) -> None:
    assert problem in ask(api, "PATCH", f"/queues/{queue}", body, 400)["error"]


def test_a_name_that_no_queue_can_have_is_refused(api: Api) -> None:
    assert "name" in ask(api, "POST", "/queues", {"name": "a b"}, 400)["error"]
    assert "name" in ask(api, "POST", "/queues/*/purge", {}, 400)["error"]


def test_what_is_stored_for_a_queue_holds_for_tasks_that_do_not_say_it(api: Api, queue: str) -> None:
    ask(api, "PATCH", f"/queues/{queue}", {"priority": 7, "timeout": "40s", "maxTaskRetry": 1})
    plain, own = api.enqueue(
        {**NOOP, "queue": queue, "delay": "1h"},
        {**NOOP, "queue": queue, "delay": "1h", "priority": -1, "timeout": "0s"},
    )

    assert (plain["priority"], own["priority"]) == (7, -1)
    found = api.task(plain["id"])
    assert (found["timeout"], found["maxAttempts"]) == ("40s", 2)
    assert found["origins"] == {
        "priority": "stored",
        "maxAttempts": "stored",
        "backOffDuration": "task",
        "timeout": "stored",
        "softTimeout": "code",
    }
    assert api.task(own["id"])["origins"]["priority"] == "task"
    assert api.task(own["id"])["timeout"] is None


def test_a_paused_queue_begins_nothing_until_it_is_resumed(api: Api, queue: str) -> None:
    paused = ask(api, "POST", f"/queues/{queue}/pause", {"reason": "relay is down", "by": "ada", "for": "1h"})["paused"]
    assert (paused["reason"], paused["by"]) == ("relay is down", "ada")
    (held,) = api.enqueue({**NOOP, "queue": queue})
    (other,) = api.enqueue({**NOOP})
    api.ended(other["id"])
    assert api.task(held["id"])["status"] == "queued"

    assert ask(api, "POST", f"/queues/{queue}/resume")["paused"] is None
    api.ended(held["id"])


def test_a_pause_that_ends_by_itself_lets_go(api: Api, queue: str) -> None:
    ask(api, "POST", f"/queues/{queue}/pause", {"for": "300ms"})
    (held,) = api.enqueue({**NOOP, "queue": queue})

    api.ended(held["id"])
    assert ask(api, "GET", f"/queues/{queue}")["paused"] is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"for": "1h", "until": "2030-01-01T00:00:00Z"}, "until: conflicts with for"),
        ({"for": "0s"}, "for: must be longer than 0s"),
        ({"until": "2030-01-01T00:00:00"}, "until: Input should have timezone info"),
        ({"until": "2020-01-01T00:00:00Z"}, "until: is over already"),
        ({"why": "x"}, "why: is not known: allowed are reason, by, until, for"),
        ({"reason": "\x00"}, "reason: contains NUL"),
    ],
)
def test_a_pause_that_cannot_be_is_refused(api: Api, queue: str, body: Any, problem: str) -> None:
    assert problem in ask(api, "POST", f"/queues/{queue}/pause", body, 400)["error"]


def test_everything_is_paused_and_resumed(api: Api) -> None:
    try:
        assert ask(api, "POST", "/pause", {"by": "ada"})["paused"]["by"] == "ada"
        assert ask(api, "GET", "/queues")["paused"]["by"] == "ada"
        (held,) = api.enqueue({**NOOP})
        assert api.task(held["id"])["status"] == "queued"
    finally:
        assert ask(api, "POST", "/resume")["paused"] is None
    api.ended(held["id"])


def test_a_drained_queue_takes_nothing_new_and_says_when_it_is_empty(api: Api, queue: str) -> None:
    ask(api, "POST", f"/queues/{queue}/pause", {})
    (held,) = api.enqueue({**NOOP, "queue": queue})
    drained = ask(api, "POST", f"/queues/{queue}/drain")
    assert drained["drainingSince"] is not None
    assert drained["empty"] is False

    refused = api.http.post("/tasks/enqueue", json={"tasks": [{**NOOP}, {**NOOP, "queue": queue}]})
    keyed = api.http.post(
        "/tasks/enqueue", json={"tasks": [{**NOOP, "queue": queue}]}, headers={"Idempotency-Key": queue}
    )
    for answer in (refused, keyed):
        assert (answer.status_code, queue in answer.json()["error"]) == (409, True)

    ask(api, "POST", f"/queues/{queue}/purge")
    assert api.task(held["id"])["status"] == "cancelled"
    assert ask(api, "GET", f"/queues/{queue}")["empty"] is True
    ask(api, "POST", f"/queues/{queue}/resume")
    (taken,) = api.enqueue({**NOOP, "queue": queue})
    api.ended(taken["id"])


def test_a_refused_neighbour_refuses_nobody_else(api: Api, queue: str) -> None:
    """Requests that come together travel together."""
    ask(api, "POST", f"/queues/{queue}/drain")
    bodies = [{"tasks": [{**NOOP, "queue": queue} if n % 2 else {**NOOP}]} for n in range(40)]
    with httpx.Client(base_url=api.url, timeout=60) as http:
        statuses = _post_together(http, bodies)

    assert statuses == [409 if n % 2 else 200 for n in range(40)]


def _post_together(http: httpx.Client, bodies: list[Any]) -> list[int]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: http.post("/tasks/enqueue", json=body).status_code, bodies))


def test_a_purge_cancels_what_waits_and_says_how_much_that_is(api: Api, queue: str) -> None:
    ask(api, "POST", f"/queues/{queue}/pause", {})
    tasks = api.enqueue(*({**NOOP, "queue": queue, **({"delay": "1h"} if n % 2 else {})} for n in range(20)))
    dry = ask(api, "POST", f"/queues/{queue}/purge", {"dryRun": True})
    assert dry == {"queue": queue, "dryRun": True, "tasks": 20, "done": True}
    assert api.task(tasks[0]["id"])["status"] == "queued"

    assert ask(api, "POST", f"/queues/{queue}/purge") == {"queue": queue, "dryRun": False, "tasks": 20, "done": True}
    assert {api.task(task["id"])["status"] for task in tasks} == {"cancelled"}
    assert api.task(tasks[0]["id"])["error"] == "its queue was purged"
    assert ask(api, "POST", f"/queues/{queue}/purge")["tasks"] == 0


def test_a_queue_with_tasks_is_not_deleted(api: Api, queue: str) -> None:
    ask(api, "POST", f"/queues/{queue}/pause", {})
    api.enqueue({**NOOP, "queue": queue})

    assert "not empty" in ask(api, "DELETE", f"/queues/{queue}", status=409)["error"]


def test_the_list_has_every_queue_with_its_counts(api: Api, queue: str) -> None:
    ask(api, "POST", f"/queues/{queue}/pause", {})
    api.enqueue(*({**NOOP, "queue": queue} for _ in range(3)))

    def counted() -> dict[str, Any] | None:
        found = {item["name"]: item for item in ask(api, "GET", "/queues")["queues"]}
        assert {"default", queue} <= found.keys()
        return found[queue] if found[queue]["counts"] == {"queued": 3} else None

    assert eventually(counted)["empty"] is False
    assert ask(api, "GET", f"/queues/{queue}")["counts"] == {"queued": 3}


def test_a_concurrency_key_lets_one_of_its_tasks_run(api: Api, queue: str, ledger: Ledger, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    payload = {"ledger": ledger.path, "n": 1, "gate": str(gate)}
    holding = {"taskType": "Hold", "payload": payload, "queue": queue, "concurrencyKey": "ada"}
    first, second = api.enqueue(holding, {**holding, "fairnessKey": "b"})
    (other,) = api.enqueue({**NOOP, "queue": queue, "concurrencyKey": "bob"})
    api.ended(other["id"])

    statuses = {api.task(task["id"])["status"] for task in (first, second)}
    gate.touch()
    assert statuses == {"running", "queued"}
    assert [api.ended(task["id"])["status"] for task in (first, second)] == ["succeeded"] * 2
    assert api.task(second["id"])["fairnessKey"] == "b"


@pytest.mark.parametrize("key", ["concurrencyKey", "fairnessKey"])
@pytest.mark.parametrize("value", ["x" * 201, "a\x00", 7])
def test_a_key_that_no_row_could_hold_is_refused(api: Api, key: str, value: Any) -> None:
    answer = ask(api, "POST", "/tasks/enqueue", {"tasks": [{**NOOP, key: value}]}, 400)
    assert f"tasks[0].{key}" in answer["error"]
