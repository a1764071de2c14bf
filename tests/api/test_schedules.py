"""Schedules as resources: what they make, what they show, and what is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from tests.api.conftest import IDLE_QUEUE, Api
from tests.api.test_commands import Terminal
from tests.api.test_queues import ask
from tests.eventually import eventually

_numbers = count()
WORK = {"taskType": "CPUProcess", "payload": {"processType": "x"}, "queue": IDLE_QUEUE}
HOURLY = {**WORK, "every": "1h"}


@pytest.fixture
def name(api: Api) -> Iterator[str]:
    """Of a schedule that is gone when the test ends."""
    name = f"s{next(_numbers)}"
    yield name
    api.http.delete(f"/schedules/{name}")


def create(api: Api, name: str, **fields: Any) -> dict[str, Any]:
    return dict(ask(api, "POST", "/schedules", {"name": name, **fields}, 201))


def made(api: Api, name: str) -> list[dict[str, Any]]:
    return api.listed(createdBy=f"schedule {name}", limit=100)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_ticks_become_tasks_as_long_as_the_schedule_is_there(api: Api, name: str) -> None:
    created = create(api, name, **WORK, every="1s", priority=3, timeout="1m")
    assert (created["from"], created["every"], created["timeout"], created["ticks"]) == ("stored", "1s", "1m", [])
    tasks = eventually(lambda: found if len(found := made(api, name)) >= 2 else None)
    assert {(task["priority"], task["timeout"], task["queue"]) for task in tasks} == {(3, "1m", IDLE_QUEUE)}

    assert ask(api, "PATCH", f"/schedules/{name}", {"cron": "0 0 1 1 *", "priority": None})["every"] is None
    view = ask(api, "GET", f"/schedules/{name}")
    ticks = view["ticks"]
    assert {tick["taskId"] for tick in ticks} == {task["id"] for task in made(api, name)}
    due = [instant(tick["dueAt"]) for tick in reversed(ticks)]
    assert due == [due[0] + timedelta(seconds=n) for n in range(len(due))]
    assert {tick["kind"] for tick in ticks} == {"tick"}
    assert (view["priority"], len(view["next"])) == (None, 5)
    (listed,) = (item for item in ask(api, "GET", "/schedules")["schedules"] if item["name"] == name)
    assert listed["ticks"] == ticks[:1]

    ask(api, "DELETE", f"/schedules/{name}", status=204)
    ask(api, "GET", f"/schedules/{name}", status=404)
    assert len(made(api, name)) == len(ticks)


def test_the_next_ticks_are_shown_in_the_time_of_the_schedule(api: Api, name: str) -> None:
    created = create(api, name, **WORK, cron="30 2 29 2 *", timeZone="Europe/Berlin")
    assert created["next"][0] == "2028-02-29T02:30:00+01:00"
    assert ask(api, "PATCH", f"/schedules/{name}", {"timeZone": None})["next"][0] == "2028-02-29T02:30:00Z"


def test_a_paused_schedule_can_be_triggered_and_says_why_it_is_paused(api: Api, name: str) -> None:
    create(api, name, **HOURLY)
    paused = ask(api, "POST", f"/schedules/{name}/pause", {"reason": "a look", "by": "ada"})
    assert (paused["paused"]["reason"], paused["paused"]["until"], paused["next"]) == ("a look", None, [])

    triggered = ask(api, "POST", f"/schedules/{name}/trigger")
    (task,) = made(api, name)
    assert task["id"] == triggered["taskId"]
    (tick,) = ask(api, "GET", f"/schedules/{name}")["ticks"]
    assert (tick["kind"], tick["outcome"], tick["taskId"]) == ("trigger", "task", task["id"])

    until = datetime.now(UTC) + timedelta(hours=30)  # noqa: TID251 - the API goes by the same clock
    paused = ask(api, "POST", f"/schedules/{name}/pause", {"until": until.isoformat()})
    assert until <= instant(paused["next"][0]) <= until + timedelta(hours=1)
    resumed = ask(api, "POST", f"/schedules/{name}/resume")
    assert (resumed["paused"], len(resumed["next"])) == (None, 5)


def test_a_drained_queue_gets_no_tasks_and_the_ticks_say_so(api: Api, name: str) -> None:
    queue = f"drained-{name}"
    ask(api, "POST", "/queues", {"name": queue}, 201)
    ask(api, "POST", f"/queues/{queue}/drain")
    try:
        create(api, name, **{**WORK, "queue": queue}, every="1s")
        eventually(
            lambda: [tick["outcome"] for tick in ask(api, "GET", f"/schedules/{name}")["ticks"]][:1] == ["drained"]
        )
        assert "is drained" in ask(api, "POST", f"/schedules/{name}/trigger", status=409)["error"]
        assert made(api, name) == []
        ask(api, "POST", f"/queues/{queue}/resume")
        eventually(lambda: made(api, name))
    finally:
        ask(api, "POST", f"/queues/{queue}/resume")


def test_its_type_makes_keys_for_its_tasks_as_for_others(api: Api, name: str) -> None:
    keyed = {"taskType": "Keyed", "queue": IDLE_QUEUE, "every": "1h"}
    bad = {"name": name, **keyed, "payload": {"customer": {}}}
    assert ask(api, "POST", "/schedules", bad, 400)["errors"][0]["field"] == "concurrencyKey"
    for payload, said, expected in (
        ({"name": "ada"}, None, "ada"), ({"name": "bob"}, None, "bob"), ({"name": "bob"}, "own", "own"),
    ):  # fmt: skip
        changed = {"payload": {"customer": payload}, "concurrencyKey": said}
        if expected == "ada":
            create(api, name, **keyed, payload={"customer": payload}, resources={"num_gpus": 1}, affinityKey="home")
        else:
            ask(api, "PATCH", f"/schedules/{name}", changed)
        task = api.task(ask(api, "POST", f"/schedules/{name}/trigger")["taskId"])
        assert (task["concurrencyKey"], task["fairnessKey"], task["affinityKey"]) == (expected, "shared", "home")
        assert task["resources"] == {"num_gpus": 1.0}
    assert "$keys" not in ask(api, "GET", f"/schedules/{name}")


def test_what_is_past_is_made_up_for_and_each_task_knows_its_instant(api: Api, name: str) -> None:
    create(api, name, **WORK, cron="0 6 * * *", timeZone="America/New_York", instantField="processType")
    span = {"from": "2026-03-07T00:00:00Z", "to": "2026-03-10T00:00:00Z"}
    assert ask(api, "POST", f"/schedules/{name}/backfill", {**span, "dryRun": True})["ticks"] == 3
    assert made(api, name) == []
    assert ask(api, "POST", f"/schedules/{name}/backfill", span) == {"name": name, "dryRun": False, "ticks": 3}
    assert [task["payload"]["processType"] for task in reversed(made(api, name))] == [
        "2026-03-07T06:00:00-05:00", "2026-03-08T06:00:00-04:00", "2026-03-09T06:00:00-04:00"
    ]  # fmt: skip
    assert {tick["kind"] for tick in ask(api, "GET", f"/schedules/{name}")["ticks"]} == {"backfill"}


def test_ticks_wait_in_line_where_the_schedule_says_so(api: Api, name: str) -> None:
    create(api, name, **HOURLY, overlap="queue")
    first, second = (ask(api, "POST", f"/schedules/{name}/trigger")["taskId"] for _ in range(2))
    assert [tick["outcome"] for tick in ask(api, "GET", f"/schedules/{name}")["ticks"]] == ["waiting", "task"]
    assert [task["id"] for task in made(api, name)] == [first]
    ask(api, "POST", f"/task/{first}/cancel")
    eventually(lambda: {task["id"] for task in made(api, name)} == {first, second})
    too_many = {"from": "2026-01-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}
    assert "more than 1000 ticks" in ask(api, "POST", f"/schedules/{name}/backfill", too_many, 400)["error"]


def test_what_is_stored_comes_before_the_configuration(api: Api) -> None:
    found = ask(api, "GET", "/schedules/configured")
    assert (found["from"], found["every"], found["cron"]) == ("config", "8000h", None)
    ask(api, "DELETE", "/schedules/configured", status=409)
    ask(api, "POST", "/schedules", {"name": "configured", **HOURLY}, 409)
    try:
        changed = ask(api, "PATCH", "/schedules/configured", {"cron": "@yearly", "overlap": "skip"})
        assert (changed["from"], changed["every"], changed["queue"]) == ("stored", None, IDLE_QUEUE)
        assert ask(api, "POST", "/schedules/configured/pause")["from"] == "stored"
        assert ask(api, "POST", "/schedules/configured/trigger")["taskId"]
    finally:
        ask(api, "DELETE", "/schedules/configured", status=204)
    found = ask(api, "GET", "/schedules/configured")
    assert (found["from"], found["every"], found["paused"]) == ("config", "8000h", None)


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"cron": "0 0 30 2 *"}, "cron", "day-of-month"),
        ({"cron": "61 * * * *"}, "cron", "bad minute"),
        ({"cron": "0 0 * * *", "timeZone": "Europe/Berln"}, "timeZone", "did you mean Europe/Berlin?"),
        ({"cron": "0 0 * * *", "every": "1h"}, "cron", "name one of the two"),
        ({}, "cron", "name one of the two"),
        ({"every": "10ms"}, "every", "greater than or equal to 1"),
        ({"every": "9000h"}, "every", "less than or equal to"),
        ({"every": "soon"}, "every", "must be a duration"),
        ({"every": "1h", "taskType": "Nothing"}, "taskType", "known are"),
        ({"every": "1h", "payload": {}}, "payload.processType", "Field required"),
        ({"every": "1h", "payload": {"processType": "a\u0000"}}, "payload.processType", "NUL"),
        ({"every": "1h", "payload": {"processType": "x", "more": "y" * 70_000}}, "payload", "65536 bytes"),
        ({"every": "1h", "overlap": "maybe"}, "overlap", "'allow', 'skip' or 'queue'"),
        ({"every": "1h", "catchUp": "some"}, "catchUp", "'none', 'last' or 'all'"),
        ({"every": "1h", "catchUpWithin": "800h"}, "catchUpWithin", "less than or equal to"),
        ({"every": "1h", "queue": "no such name"}, "queue", "match pattern"),
        ({"every": "1h", "priority": 101}, "priority", "less than or equal to 100"),
        ({"every": "1h", "colour": "red"}, "colour", "allowed are taskType"),
        ({"every": "1h", "name": ""}, "name", "match pattern"),
    ],
)
def test_what_no_schedule_can_be_is_refused_by_field(api: Api, fields: dict[str, Any], field: str, why: str) -> None:
    answer = ask(api, "POST", "/schedules", {"name": "bad", **WORK, **fields}, 400)
    (problem,) = answer["errors"]
    assert problem["field"] == field
    assert why in problem["message"]
    if "name" not in fields:
        changed = ask(api, "PATCH", "/schedules/configured", {"every": None, **fields}, 400 if fields else 200)
        assert not fields or changed["errors"][0]["field"] == field


def test_a_body_that_is_no_object_is_refused(api: Api) -> None:
    for method, path in (("POST", "/schedules"), ("PATCH", "/schedules/configured")):
        assert "object" in ask(api, method, path, [], 400)["errors"][0]["message"]


def test_what_is_not_there_is_not_changed(api: Api, name: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/trigger"), ("POST", "/resume")):
        assert "there is no schedule" in ask(api, method, f"/schedules/{name}{path}", {}, 404)["error"]
    create(api, name, **HOURLY)
    assert "exists already" in ask(api, "POST", "/schedules", {"name": name, **WORK, "every": "2h"}, 409)["error"]
    for span in (
        {"from": "2026-03-07T00:00:00Z", "to": "2026-03-07T00:00:00Z"},
        {"from": "2026-03-07T00:00:00Z", "to": "2099-01-01T00:00:00Z"},
        {"from": "2020-03-07T00:00:00Z", "to": "2026-03-07T00:00:00Z"},
        {"from": "2026-03-07T00:01:00Z", "to": "2026-03-07T00:02:00Z"},
        {"from": "yesterday", "to": "2026-03-07T00:00:00Z"},
        {"to": "2026-03-07T00:00:00Z"},
    ):
        assert ask(api, "POST", f"/schedules/{name}/backfill", span, 400)["errors"][0]["field"] in {"from", "to"}


def test_a_schedule_is_steered_from_the_command_line(api: Api, name: str) -> None:
    terminal = Terminal(api.url)
    payload = '{"processType": "x"}'
    words = terminal.words("schedules", "create", name, "CPUProcess", payload, "--every", "6h", "--queue", IDLE_QUEUE)
    assert (words["every"], words["overlap"]) == ("6h", "allow")
    assert terminal.json("schedules", "set", name, "--cron", "0 9 * * *", "--time-zone", "Asia/Tokyo")["every"] is None
    assert (
        terminal.json("schedules", "pause", name, "--reason", "a look", "--for", "1h")["paused"]["reason"] == "a look"
    )
    assert terminal.json("schedules", "resume", name)["paused"] is None
    task = terminal.json("schedules", "trigger", name)["taskId"]
    span = ("2026-03-07T00:00:00Z", "2026-03-09T00:00:00Z")
    assert terminal.json("schedules", "backfill", name, *span, "--dry-run")["ticks"] == 2
    assert task in terminal.text("schedules", "show", name)
    assert name in terminal.text("schedules", "list")
    assert terminal.json("schedules", "delete", name) == {"name": name, "deleted": True}
