"""What is printed of a task that is followed."""

from typing import Any

import httpx
import pytest

from asyncproc.commands.client import ApiRefused, Client
from asyncproc.commands.following import _new_lines, _news, _progress


def task(status: str, log: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"status": status, "attempt": 1, "maxAttempts": 3, "log": log, **more}


def line(text: str, second: int = 0) -> dict[str, Any]:
    return {"at": f"2026-11-25T09:00:0{second}Z", "attempt": 1, "message": text}


def test_what_is_new_is_printed_once() -> None:
    progress = {"done": 1, "total": 4, "note": "a\x1b[31mb", "at": "2026-11-25T09:00:01Z"}
    first = task("running", [line("begins")], progress=progress)
    assert list(_news({}, first)) == [
        "2026-11-25T09:00:00Z  attempt 1  begins",
        "2026-11-25T09:00:01Z  1 of 4 (25 %): a\ufffd[31mb",
        "running, attempt 1 of 3",
    ]
    second = task("retrying", [line("begins"), line("goes on", 2)], progress=progress, error="Boom: no")
    assert list(_news(first, second)) == [
        "2026-11-25T09:00:02Z  attempt 1  goes on",
        "retrying, attempt 1 of 3: Boom: no",
    ]
    assert list(_news(second, second)) == []


def test_lines_that_look_alike_are_all_printed() -> None:
    same = line("again")
    assert _new_lines([same], [same, same]) == []
    assert _new_lines([line("gone")], [same, line("b", 1)]) == [same, line("b", 1)]


def test_a_progress_without_total_is_a_number() -> None:
    assert _progress({"done": 3, "total": None, "note": None}) == "3"
    assert _progress({"done": 0, "total": 0, "note": None}) == "0 of 0"
    assert _progress(None) is None


def test_a_stream_is_read_by_its_events_and_a_refusal_is_told() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path == "/no":
            return httpx.Response(404, json={"error": "there is no task"})
        return httpx.Response(200, text=": hello\n\nevent: task\nid: a.1\ndata: {}\n\n: still there\n\nid: b\nda")

    client = Client("http://x", httpx.MockTransport(answer))
    assert list(client.events("/task/t/events", "a.0")) == [("a.1", "{}")]
    assert asked[0].headers["Last-Event-ID"] == "a.0"
    with pytest.raises(ApiRefused, match="there is no task"):
        list(client.events("/no", None))
