"""Task types and rate limits as resources."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.test_queues import NOOP, ask


def of_type(api: Api, key: str, name: str = "CPUProcess") -> tuple[Any, str]:
    found = ask(api, "GET", f"/types/{name}")["settings"][key]
    return found["value"], found["from"]


@pytest.fixture(autouse=True)
def nothing_stored(api: Api) -> Any:
    yield
    ask(api, "DELETE", "/types/CPUProcess", status=204)


def test_what_is_stored_for_a_type_comes_before_what_is_stored_for_its_queue(api: Api) -> None:
    assert of_type(api, "maxRunning") == ("off", "code")
    ask(api, "PATCH", "/queues/default", {"timeout": "50s", "priority": 1})
    try:
        ask(api, "PATCH", "/types/CPUProcess", {"timeout": "20s", "maxRunning": 4})
        assert of_type(api, "timeout") == ("20s", "stored")
        assert of_type(api, "priority") == (1, "stored")
        (task,) = api.enqueue({**NOOP, "delay": "1h"})
        assert (api.task(task["id"])["timeout"], task["priority"]) == ("20s", 1)
    finally:
        ask(api, "PUT", "/queues/default", {})

    ask(api, "PUT", "/types/CPUProcess", {})
    assert of_type(api, "timeout") == ("0s", "code")


def test_all_types_are_listed(api: Api) -> None:
    assert {"CPUProcess", "SendEmail"} <= {item["name"] for item in ask(api, "GET", "/types")["types"]}


def test_a_type_that_nobody_registered_is_not_there(api: Api) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/pause")):
        assert "known are" in ask(api, method, f"/types/Nothing{path}", {}, 404)["error"]


def test_a_paused_type_begins_nothing_until_it_is_resumed(api: Api) -> None:
    assert ask(api, "POST", "/types/CPUProcess/pause", {"reason": "a bug"})["paused"]["reason"] == "a bug"
    (held,) = api.enqueue(NOOP)
    (other,) = api.enqueue({"taskType": "SendEmail", "payload": {"sendTo": ["a@b"], "sendFrom": "c@d"}})
    api.ended(other["id"])
    assert api.task(held["id"])["status"] == "queued"

    ask(api, "POST", "/types/CPUProcess/resume")
    api.ended(held["id"])


def test_types_draw_from_a_rate_limit_that_is_there(api: Api) -> None:
    assert "there is no such rate limit" in ask(
        api, "PATCH", "/types/CPUProcess", {"rateLimits": {"relay": 1}}, 400
    )["error"]  # fmt: skip
    assert ask(api, "PUT", "/rate-limits/relay", {"rate": "600/min"})["burst"] == 10
    ask(api, "PATCH", "/types/CPUProcess", {"rateLimits": {"relay": 2.5}})
    (relay,) = ask(api, "GET", "/rate-limits")["rateLimits"]
    assert relay == {
        "name": "relay", "rate": "600/min", "burst": 10.0, "from": "stored", "drawnBy": {"CPUProcess": 2.5}
    }  # fmt: skip

    assert "drawn from by CPUProcess" in ask(api, "DELETE", "/rate-limits/relay", status=409)["error"]
    ask(api, "PUT", "/types/CPUProcess", {})
    ask(api, "DELETE", "/rate-limits/relay", status=204)
    ask(api, "GET", "/rate-limits/relay", status=404)


@pytest.mark.parametrize(
    "body", [{}, {"rate": "60"}, {"rate": "0/s"}, {"rate": "1/fortnight"}, {"rate": "1/s", "burst": 0}]
)
def test_a_rate_that_cannot_be_is_refused(api: Api, body: Any) -> None:
    problem = ask(api, "PUT", "/rate-limits/odd", body, 400)["error"]
    assert problem.startswith(("rate: ", "burst: "))
