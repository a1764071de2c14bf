"""The commands as they are typed, against the API."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncproc.cli import cli
from asyncproc.commands.client import ApiRefused
from tests.api.conftest import Api
from tests.api.test_queues import NOOP
from tests.eventually import eventually


class Terminal:
    def __init__(self, url: str) -> None:
        self._url = url

    def text(self, *arguments: str, typed: str | None = None) -> str:
        result = CliRunner().invoke(
            cli, [*arguments, "--url", self._url], input=typed, catch_exceptions=False, standalone_mode=False
        )
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--json"))

    def words(self, *arguments: str) -> dict[str, str]:
        """The table of one object: its first words to the rest of their lines."""
        lines = (line.split(maxsplit=1) for line in self.text(*arguments).splitlines())
        return {line[0]: line[1].strip() for line in lines if len(line) == 2}


@pytest.fixture
def terminal(api: Api) -> Terminal:
    return Terminal(api.url)


def test_a_task_is_followed_to_its_end(terminal: Terminal, api: Api, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (task,) = api.enqueue({"taskType": "Tell", "payload": {"gate": str(gate)}})
    with ThreadPoolExecutor() as threads:
        following = threads.submit(terminal.text, "tasks", "show", task["id"], "--follow")
        eventually(lambda: api.task(task["id"])["progress"])
        gate.touch()
        said = following.result()
    assert "attempt 1  waits for the gate" in said
    assert "2 of 2 (100 %)" in said
    assert said.splitlines()[-1] == "succeeded, attempt 1 of 1"
    shown = terminal.text("tasks", "show", task["id"])
    assert "2 of 2 (100 %)" in shown
    assert shown.splitlines()[-2] == "log"
    assert [
        json.loads(line)["status"]
        for line in terminal.text("tasks", "show", task["id"], "--follow", "--json").splitlines()
    ] == ["succeeded"]


def test_a_queue_is_steered_from_its_creation_to_its_end(terminal: Terminal, api: Api) -> None:
    assert terminal.words("queues", "create", "typed", "weight=3", "aging=30s")["weight"] == "3 (stored)"
    assert terminal.words("queues", "set", "typed", "weight=null", "maxRunning=2")["weight"] == "1 (code)"
    assert terminal.json("queues", "show", "typed")["settings"]["maxRunning"] == {"value": 2, "from": "stored"}
    assert "typed" in terminal.text("queues", "list")

    paused = terminal.json("queues", "pause", "typed", "--reason", "a look", "--for", "1h")["paused"]
    assert (paused["reason"], bool(paused["by"])) == ("a look", True)
    api.enqueue({**NOOP, "queue": "typed"}, {**NOOP, "queue": "typed"})
    assert terminal.json("queues", "purge", "typed", "--dry-run")["tasks"] == 2
    with pytest.raises(click.Abort):
        terminal.text("queues", "purge", "typed", typed="n\n")
    assert terminal.json("queues", "show", "typed")["counts"] == {"queued": 2}
    assert terminal.json("queues", "purge", "typed", "--yes") == {
        "queue": "typed", "dryRun": False, "tasks": 2, "done": True
    }  # fmt: skip

    assert terminal.json("queues", "drain", "typed")["empty"] is True
    assert terminal.json("queues", "resume", "typed")["drainingSince"] is None
    assert terminal.json("queues", "delete", "typed") == {"name": "typed", "deleted": True}
    with pytest.raises(ApiRefused, match="there is no queue typed"):
        terminal.text("queues", "show", "typed")


def test_types_draw_from_rates(terminal: Terminal) -> None:
    assert terminal.words("rates", "set", "typed", "60/min", "--burst", "10")["burst"] == "10.0"
    assert terminal.words("types", "set", "CPUProcess", "rateLimits.typed=2")["rateLimits"] == '{"typed": 2.0} (stored)'
    assert "CPUProcess" in terminal.text("rates", "list")
    with pytest.raises(ApiRefused, match="drawn from by CPUProcess"):
        terminal.text("rates", "delete", "typed")
    assert terminal.json("types", "pause", "CPUProcess")["paused"] is not None
    assert terminal.json("types", "resume", "CPUProcess")["paused"] is None
    assert terminal.json("types", "reset", "CPUProcess") == {"name": "CPUProcess", "reset": True}
    assert "CPUProcess" in terminal.text("types", "list")
    assert terminal.json("types", "show", "CPUProcess")["settings"]["rateLimits"]["from"] == "code"
    assert terminal.json("rates", "delete", "typed")["deleted"]


def test_everything_is_paused_and_resumed(terminal: Terminal) -> None:
    try:
        assert terminal.json("pause", "--by", "ada")["paused"]["by"] == "ada"
    finally:
        assert terminal.json("resume")["paused"] is None


def test_a_task_is_enqueued_looked_at_and_retried(terminal: Terminal, api: Api) -> None:
    arguments = ("CPUProcess", '{"processType": "x"}', "--back-off", "1ms", "--created-by", "typist")
    (task,) = terminal.json("tasks", "enqueue", *arguments, "--priority", "3", "--fairness-key", "ada")["tasks"]
    assert api.ended(task["id"])["fairnessKey"] == "ada"

    assert terminal.words("tasks", "show", task["id"])["taskType"] == "CPUProcess"
    listed = terminal.json("tasks", "list", "--created-by", "typist", "--type", "CPUProcess", "--priority", "3")
    assert [found["id"] for found in listed["tasks"]] == [task["id"]]
    assert task["id"] in terminal.text("tasks", "list", "--limit", "1000", "--created-by", "typist")
    assert terminal.json("tasks", "retry", task["id"])["id"] == task["id"]
    api.ended(task["id"])


def test_a_task_depends_on_others(terminal: Terminal, api: Api) -> None:
    first, second = (terminal.json("tasks", "enqueue", "Gather")["tasks"][0]["id"] for _ in range(2))
    arguments = ("--depends-on", first, "--depends-on", second, "--on-parent-failure", "run")
    (task,) = terminal.json("tasks", "enqueue", "Gather", *arguments)["tasks"]
    assert task["status"] == "blocked"
    ended = api.ended(task["id"])
    assert (ended["dependsOn"], ended["onParentFailure"]) == ([first, second], "run")


def test_a_payload_can_come_from_standard_input(terminal: Terminal, api: Api) -> None:
    terminal.text("tasks", "enqueue", "CPUProcess", "-", "--created-by", "piper", typed='{"processType": "piped"}')
    (task,) = api.listed(createdBy="piper")
    assert task["payload"] == {"processType": "piped"}
