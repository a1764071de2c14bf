"""What the commands on tasks that wait, operations and dead letters ask the API for."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar, TypeAlias

import pytest
from click.testing import CliRunner

from asyncproc.cli import cli

Call: TypeAlias = "Callable[..., tuple[Asked, str]]"

OPERATION = {"id": "op", "action": "cancel", "state": "running", "matched": 3, "done": 2, "skipped": 1, "filter": {}}
TASK = {"id": "t", "taskType": "Work", "queue": "mail", "status": "queued", "priority": 5}
EXPLAINED = {
    "id": "t", "status": "queued", "queue": "mail", "position": 3, "estimated": True, "slots": 4,
    "ahead": [{"queue": "mail", "taskType": "Work", "count": 2}], "estimatedStart": "2026-11-25T09:00:00Z",
    "reasons": [{"kind": "pause", "name": "mail", "text": "the queue mail is paused", "until": None}],
}  # fmt: skip


@dataclass(slots=True)
class Asked:
    method: str
    path: str
    body: Any


class Answering(BaseHTTPRequestHandler):
    """Answers the same to all, and keeps what was asked."""

    answer: Any = None
    asked: ClassVar[list[Asked]] = []

    def do_GET(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(Asked(self.command, self.path, json.loads(text) if text else None))
        body = json.dumps(Answering.answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def call() -> Iterator[Call]:
    """Run a command against an API that answers so; returns what was asked, and what was printed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever)
    thread.start()

    def call(answer: Any, *arguments: str) -> tuple[Asked, str]:
        Answering.answer = answer
        url = f"http://127.0.0.1:{server.server_port}"
        result = CliRunner().invoke(cli, [*arguments, "--url", url], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return Answering.asked[-1], result.output

    yield call
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body"),
    [
        (["tasks", "change", "t", "--priority", "5"], "PATCH", "/task/t", {"priority": 5}),
        (["tasks", "change", "t", "--run-now"], "PATCH", "/task/t", {"runNow": True}),
        (["tasks", "change", "t", "--queue", "q", "--run-at", "x"], "PATCH", "/task/t", {"queue": "q", "runAt": "x"}),
        (
            [
                "bulk",
                "changePriority",
                "--queue",
                "mail",
                "--queue",
                "post",
                "--created-by",
                "me",
                "--set-priority",
                "5",
            ],
            "POST",
            "/tasks/bulk",
            {
                "action": "changePriority",
                "priority": 5,
                "filter": {"queue": ["mail", "post"], "createdBy": ["me"]},
                "all": False,
                "dryRun": False,
            },
        ),
        (
            ["bulk", "cancel", "--all", "--dry-run"],
            "POST",
            "/tasks/bulk",
            {"action": "cancel", "filter": {}, "all": True, "dryRun": True},
        ),
        (
            ["dead", "redrive", "--fingerprint", "0f3a9c51d2e4", "--rate", "10/s"],
            "POST",
            "/dead-letters/redrive",
            {"filter": {"fingerprint": ["0f3a9c51d2e4"]}, "rate": "10/s", "all": False, "dryRun": False},
        ),
        (
            ["dead", "discard", "--type", "Work", "--created-before", "2026-11-25"],
            "POST",
            "/dead-letters/discard",
            {"filter": {"type": ["Work"], "createdBefore": "2026-11-25"}, "all": False, "dryRun": False},
        ),
        (["operations", "cancel", "op"], "POST", "/operations/op/cancel", None),
    ],
)
def test_a_command_asks_for_what_it_says(call: Call, arguments: list[str], method: str, path: str, body: Any) -> None:
    assert call(OPERATION, *arguments)[0] == Asked(method, path, body)


def test_lists_are_tables(call: Call) -> None:
    asked, output = call({"tasks": [TASK], "next": None}, "dead", "list", "--type", "A", "--type", "B")
    assert asked.path == "/dead-letters?type=A&type=B&limit=50"
    assert "Work" in output

    _, output = call({"operations": [OPERATION]}, "operations", "list")
    assert output.split()[:3] == ["ID", "ACTION", "STATE"]
    group = {"fingerprint": "0f3a9c51d2e4", "taskType": "Work", "error": "Boom", "count": 3}
    _, output = call({"groups": [group]}, "dead", "groups")
    assert "0f3a9c51d2e4" in output


def test_an_explanation_is_in_words(call: Call) -> None:
    _, output = call(EXPLAINED, "tasks", "explain", "t")
    for words in ("about 3", "2 Work", "the queue mail is paused", "2026-11-25T09:00:00Z"):
        assert words in output
    _, output = call(EXPLAINED, "tasks", "explain", "t", "--json")
    assert json.loads(output) == EXPLAINED
