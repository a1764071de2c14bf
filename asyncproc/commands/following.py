"""How `asyncproc tasks show` prints what a task notes, at once or as it comes."""

import json
from collections.abc import Iterator, Mapping
from time import sleep
from typing import Any, Final

import click

from asyncproc.commands.client import Client, at
from asyncproc.commands.show import printable, show

_AGAIN_S: Final = 0.5
_FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})


def show_in_full(task: dict[str, Any]) -> None:
    """All of a task; the log by lines, below the rest."""
    lines = task.get("log") or []
    show({key: _progress(value) if key == "progress" else value for key, value in task.items() if key != "log"})
    if lines:
        click.echo("log")
        for line in lines:
            click.echo(f"  {_line(line)}")


def follow(client: Client, task_id: str, as_json: bool) -> None:
    """Print what is new of a task until it has ended."""
    before: dict[str, Any] = {}
    for task in _states(client, task_id):
        if as_json:
            click.echo(json.dumps(task, ensure_ascii=False))
        else:
            for text in _news(before, task):
                click.echo(text)
        before = task


def _states(client: Client, task_id: str) -> Iterator[dict[str, Any]]:
    """The task as each event has it; a stream that breaks off is gone on with."""
    last_id: str | None = None
    status = ""
    while status not in _FINAL:
        if last_id is not None:
            sleep(_AGAIN_S)
        for event_id, data in client.events(at("task", task_id, "events"), last_id):
            last_id = event_id
            task = json.loads(data)
            status = task["status"]
            yield task


def _news(before: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[str]:
    for line in _new_lines(before.get("log") or [], task.get("log") or []):
        yield _line(line)
    if task.get("progress") and task["progress"] != before.get("progress"):
        yield f"{task['progress']['at']}  {_progress(task['progress'])}"
    now = (task["status"], task["attempt"])
    if now != (before.get("status"), before.get("attempt")):
        error = printable(f": {task['error']}") if task.get("error") else ""
        yield f"{task['status']}, attempt {task['attempt']} of {task['maxAttempts']}{error}"


def _new_lines(before: list[Any], lines: list[Any]) -> list[Any]:
    """What follows the last line that was there before; all of it where that one is gone."""
    if not before:
        return lines
    places = [place for place, line in enumerate(lines) if line == before[-1]]
    return lines[places[-1] + 1 :] if places else lines


def _line(line: Mapping[str, Any]) -> str:
    return printable(f"{line['at']}  attempt {line['attempt']}  {line['message']}")


def _progress(progress: Mapping[str, Any] | None) -> str | None:
    if progress is None:
        return None
    done, total, note = progress["done"], progress["total"], progress["note"]
    text = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    if total:
        text += f" ({100 * done / total:.0f} %)"
    return f"{text}: {printable(note)}" if note else text
