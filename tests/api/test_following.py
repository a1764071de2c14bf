"""Following one task over HTTP: wait for its end, its changes as events, and end it."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from asyncproc.clock import wall_now
from tests.api.conftest import Api, served
from tests.deployed import Ledger, settings_of
from tests.eventually import eventually


@pytest.fixture(scope="module")
def few_watches(
    serve_url: str, databases: Callable[[], AbstractContextManager[str]], start_dir: Path
) -> Iterator[httpx.Client]:
    with (
        databases() as database,
        served(serve_url, settings_of(database, "watch", api={"maxWatches": 1}), start_dir) as api,
    ):
        yield api.http


def held(api: Api, ledger: Ledger, gate: Path, **options: Any) -> str:
    """A task that runs until the gate is there."""
    payload = {"ledger": ledger.path, "n": 1, "gate": str(gate)}
    (task,) = api.enqueue({"taskType": "Hold", "payload": payload, **options})
    return str(task["id"])


def event_of(lines: Iterator[str]) -> dict[str, Any]:
    """The next event; comments are passed over."""
    event: dict[str, Any] = {}
    for line in lines:
        if not line and event:
            return event
        name, colon, value = line.partition(": ")
        if colon and name:
            event[name] = json.loads(value) if name == "data" else value
    return event


@contextmanager
def events(api: Api, task: str, **headers: str) -> Iterator[Iterator[str]]:
    with api.http.stream("GET", f"/task/{task}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield response.iter_lines()


def test_who_waits_is_answered_when_the_task_has_ended(api: Api, ledger: Ledger, tmp_path: Path) -> None:
    task = held(api, ledger, tmp_path / "gate")
    eventually(ledger.traces)
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(api.http.get, f"/task/{task}", params={"wait": 50}) for _ in range(3)]
        assert api.task(task)["status"] == "running"
        (tmp_path / "gate").touch()
        answers = [waited.result() for waited in waiting]
    assert [answer.json()["status"] for answer in answers] == ["succeeded"] * 3


def test_who_waits_too_short_is_told_how_it_stands(api: Api, ledger: Ledger, tmp_path: Path) -> None:
    task = held(api, ledger, tmp_path / "gate")
    eventually(ledger.traces)
    assert api.http.get(f"/task/{task}", params={"wait": 0.05}).json()["status"] == "running"
    (tmp_path / "gate").touch()
    api.ended(task)


def test_nobody_waits_for_what_is_not_there(api: Api) -> None:
    assert api.http.get(f"/task/{uuid4()}", params={"wait": 50}).status_code == 404
    assert api.http.get(f"/task/{uuid4()}/events").status_code == 404


def test_a_wait_has_its_bounds(api: Api, ledger: Ledger, tmp_path: Path) -> None:
    answer = api.http.get(f"/task/{uuid4()}", params={"wait": 3600})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "wait")
    assert "60" in answer.json()["error"]


def test_events_begin_with_the_task_as_it_is_and_end_with_it(api: Api, ledger: Ledger, tmp_path: Path) -> None:
    task = held(api, ledger, tmp_path / "gate")
    eventually(ledger.traces)
    with events(api, task) as lines:
        first = event_of(lines)
        assert (first["event"], first["data"]["status"]) == ("task", "running")
        (tmp_path / "gate").touch()
        last = event_of(lines)
        assert (last["data"]["id"], last["data"]["status"]) == (task, "succeeded")
        assert event_of(lines) == {}


def test_what_a_task_notes_is_seen_as_it_comes(api: Api, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (task,) = api.enqueue({"taskType": "Tell", "payload": {"gate": str(gate)}})
    with events(api, task["id"]) as lines:
        while (event := event_of(lines))["data"]["progress"] is None:
            assert event["data"]["status"] in {"queued", "running"}
        seen, progress = event["data"], event["data"]["progress"]
        assert (seen["status"], progress["done"], progress["total"], progress["note"]) == (
            "running",
            1,
            2,
            "half of it",
        )
        assert [(line["attempt"], line["message"]) for line in seen["log"]] == [(1, "waits for the gate")]
        assert datetime.fromisoformat(progress["at"]).tzinfo is not None
        assert seen["checkpoint"] is None
        with events(api, task["id"], **{"Last-Event-ID": event["id"]}) as following:
            gate.touch()
            last = event_of(following)
        assert last["id"] != event["id"]
    ended = api.ended(task["id"])
    assert (ended["progress"]["done"], ended["progress"]["note"], ended["checkpoint"]) == (2, None, [2])
    assert ended["log"] == seen["log"]
    (listed,) = api.listed(id=task["id"])
    assert listed["progress"] == ended["progress"]
    assert not {"log", "checkpoint"} & listed.keys()


def test_events_go_on_where_they_were_left(api: Api, ledger: Ledger, tmp_path: Path) -> None:
    task = held(api, ledger, tmp_path / "gate")
    eventually(ledger.traces)
    with events(api, task) as lines:
        seen = event_of(lines)["id"]
    with ThreadPoolExecutor() as threads, events(api, task, **{"Last-Event-ID": seen}) as lines:
        following = threads.submit(event_of, lines)
        (tmp_path / "gate").touch()
        assert following.result()["data"]["status"] == "succeeded"


def test_a_task_that_waits_is_cancelled(api: Api, ledger: Ledger) -> None:
    (task,) = api.enqueue({"taskType": "Note", "payload": {"ledger": ledger.path, "n": 1}, "delay": "1h"})
    answer = api.http.post(f"/task/{task['id']}/cancel", json={"reason": "not needed"})
    assert answer.status_code == 200
    assert answer.json() == {"id": task["id"], "status": "cancelled", "cancelled": "ended"}
    seen = api.task(task["id"])
    assert (seen["status"], seen["error"]) == ("cancelled", "not needed")
    assert api.http.post(f"/task/{task['id']}/cancel").json()["cancelled"] == "gone"


def test_a_running_task_is_asked_to_end(api: Api, ledger: Ledger) -> None:
    (task,) = api.enqueue({"taskType": "Heed", "payload": {"ledger": ledger.path, "n": 1, "how": "heeds"}})
    eventually(ledger.traces)
    answer = api.http.post(f"/task/{task['id']}/cancel")
    assert (answer.status_code, answer.json()["cancelled"]) == (200, "asked")
    assert api.ended(task["id"])["status"] == "cancelled"


def test_a_task_that_has_ended_is_not_cancelled(api: Api, ledger: Ledger) -> None:
    (task,) = api.enqueue({"taskType": "Note", "payload": {"ledger": ledger.path, "n": 1}})
    api.ended(task["id"])
    answer = api.http.post(f"/task/{task['id']}/cancel")
    assert answer.status_code == 409
    assert "is succeeded" in answer.json()["error"]


def test_a_cancel_that_cannot_be_is_refused(api: Api) -> None:
    assert api.http.post(f"/task/{uuid4()}/cancel").status_code == 404
    answer = api.http.post(f"/task/{uuid4()}/cancel", json={"grace": "5d"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "grace")


def test_no_more_wait_than_are_allowed(few_watches: httpx.Client) -> None:
    """Whoever is over the limit is told so at once, and the others wait on."""
    task = few_watches.post(
        "/tasks/enqueue",
        json={"tasks": [{"taskType": "CPUProcess", "payload": {"processType": "x"}, "delay": "1h"}]},
    ).json()["tasks"][0]["id"]

    def waited() -> httpx.Response:
        # What asks below may be there just before: only one of the two can wait.
        return eventually(
            lambda: (
                answer if (answer := few_watches.get(f"/task/{task}", params={"wait": 30})).status_code == 200 else None
            )
        )

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(waited)
        refused = eventually(
            lambda: (
                answer
                if (answer := few_watches.get(f"/task/{task}", params={"wait": 0.01})).status_code == 429
                else None
            )
        )
        assert "api.maxWatches" in refused.json()["error"]
        assert refused.headers["Retry-After"] == "1"
        few_watches.post(f"/task/{task}/cancel")
        assert waiting.result().json()["status"] == "cancelled"


def test_a_task_has_its_instants(api: Api, ledger: Ledger) -> None:
    now = datetime.fromtimestamp(wall_now(), UTC)
    payload = {"ledger": ledger.path, "n": 1}
    (task,) = api.enqueue(
        {
            "taskType": "Note",
            "payload": payload,
            "runAt": (now + timedelta(hours=1)).isoformat(),
            "startBy": (now + timedelta(hours=2)).isoformat(),
            "deadline": (now + timedelta(hours=3)).isoformat(),
        }
    )
    seen = api.task(task["id"])
    assert (task["status"], seen["status"]) == ("scheduled", "scheduled")
    instants = [datetime.fromisoformat(seen[name]) for name in ("readyAt", "startBy", "deadline")]
    assert [round((at - now).total_seconds()) for at in instants] == [3600, 7200, 10800]
    api.http.post(f"/task/{task['id']}/cancel")


def test_what_nobody_starts_in_time_expires(api: Api, ledger: Ledger) -> None:
    """In a queue without workers: nothing there ever comes up."""
    now = datetime.fromtimestamp(wall_now(), UTC)
    payload = {"ledger": ledger.path, "n": 1}
    expires, fails = api.enqueue(
        {"taskType": "Note", "payload": payload, "queue": "idle", "startBy": (now + timedelta(seconds=1)).isoformat()},
        {"taskType": "Note", "payload": payload, "queue": "idle", "deadline": (now + timedelta(seconds=1)).isoformat()},
    )
    expired, failed = api.ended(expires["id"]), api.ended(fails["id"])
    assert (expired["status"], expired["error"].partition(":")[0]) == ("cancelled", "it expired")
    assert (failed["status"], failed["error"].partition(":")[0]) == ("failed", "DeadlineExceeded")
    assert ledger.runs() == {}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"runAt": "2100-01-01T00:00:00Z"}, "runAt"),
        ({"runAt": "2026-11-25T09:00:00"}, "runAt"),
        ({"runAt": 1_800_000_000}, "runAt"),
        ({"runAt": "2026-11-25T09:00:00Z", "delay": "5s"}, "runAt"),
        ({"startBy": "2020-01-01T00:00:00Z"}, "startBy"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
        ({"deadline": "soon"}, "deadline"),
    ],
)
def test_instants_that_cannot_be_are_refused(api: Api, asked: dict[str, Any], field: str) -> None:
    answer = api.http.post(
        "/tasks/enqueue", json={"tasks": [{"taskType": "CPUProcess", "payload": {"processType": "x"}, **asked}]}
    )
    assert answer.status_code == 400, answer.text
    (problem,) = answer.json()["errors"]
    assert (problem["index"], problem["field"].partition(".")[0]) == (0, field)
