"""`asyncproc tasks`: enqueue, look at, list, retry and cancel tasks."""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
from pydantic.alias_generators import to_camel

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.filters import filtered
from asyncproc.commands.following import follow, show_in_full
from asyncproc.commands.show import show
from asyncproc.commands.unique import unique_options

COLUMNS: Final[Mapping[str, str]] = {
    "ID": "id",
    "TYPE": "taskType",
    "QUEUE": "queue",
    "STATUS": "status",
    "PRIORITY": "priority",
    "ATTEMPT": "attempt",
    "CREATED": "createdAt",
    "ERROR": "error",
}


@click.group()
def tasks() -> None:
    """Tasks: enqueue, list, show, retry, cancel."""


@tasks.command("list")
@filtered
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--cursor", help="`next` of the page before.")
@with_api
def list_tasks(client: Client, as_json: bool, narrowed: dict[str, Any], **page: Any) -> None:
    """Tasks that match all that is asked for, newest first."""
    show_page(client.request("GET", "/tasks", params=narrowed | page), as_json)


def show_page(page: dict[str, Any], as_json: bool) -> None:
    show(page if as_json else page["tasks"], COLUMNS, as_json)
    if page["next"] and not as_json:
        click.echo(f"more: --cursor {page['next']}", err=True)


@tasks.command("show")
@click.argument("task_id", metavar="ID")
@click.option("--wait", type=click.FloatRange(0, 60), help="Seconds to wait for its end.")
@click.option("--follow", "follows", is_flag=True, help="Print its progress, log and status as they come, to its end.")
@with_api
def show_task(client: Client, as_json: bool, task_id: str, wait: float | None, follows: bool) -> None:
    """One task in full, its progress and log included."""
    if follows:
        follow(client, task_id, as_json)
        return
    params = None if wait is None else {"wait": str(wait)}
    task = client.request("GET", at("task", task_id), params=params)
    if as_json:
        show(task, as_json=True)
    else:
        show_in_full(task)


@tasks.command()
@click.argument("task_id", metavar="ID")
@with_api
def retry(client: Client, as_json: bool, task_id: str) -> None:
    """Run a failed task again."""
    show(client.request("POST", at("task", task_id, "retry")), as_json=as_json)


@tasks.command()
@click.argument("task_id", metavar="ID")
@click.option("--reason", help="Kept as the error of the task.")
@click.option("--grace", help="How long a running one has before its process is ended, such as 30s.")
@with_api
def cancel(client: Client, as_json: bool, task_id: str, **asked: str | None) -> None:
    """End a task: at once where it waits, on request where it runs."""
    body = {name: value for name, value in asked.items() if value is not None}
    show(client.request("POST", at("task", task_id, "cancel"), json=body), as_json=as_json)


@tasks.command()
@click.argument("type_name", metavar="TYPE")
@click.argument("payload", default="{}")
@click.option("--queue")
@click.option("--priority", type=int)
@click.option("--delay", help="Such as 30s.")
@click.option("--run-at", help="Such as 2026-11-25T09:00:00Z.")
@click.option("--start-by", help="Not begun by then it is cancelled.")
@click.option("--deadline", help="Not succeeded by then it fails.")
@click.option("--back-off", help="Between attempts, such as 5s.")
@click.option("--timeout", help="Of one attempt, such as 1m.")
@click.option("--soft-timeout")
@click.option("--concurrency-key")
@click.option("--fairness-key")
@click.option("--affinity-key", help="It goes where the last one of this key ran.")
@click.option("--resources", callback=lambda _, __, text: text and _json(text), help='Such as {"num_gpus": 0.5}.')
@click.option("--created-by")
@unique_options
@click.option("--depends-on", multiple=True, help="ID of a task that must have ended first; may be said several times.")
@click.option(
    "--on-parent-failure",
    type=click.Choice(["fail", "skip", "run"]),
    help="What becomes of it when one of them does not succeed; fail where nothing is said.",
)
@with_api
def enqueue(client: Client, as_json: bool, type_name: str, payload: str, back_off: str | None, **options: Any) -> None:
    """Enqueue one task. PAYLOAD is JSON; `-` reads it from standard input."""
    task = {"taskType": type_name, "payload": _json(payload), "backOffDuration": back_off}
    task |= {to_camel(name): value for name, value in options.items()}
    body = {"tasks": [{name: value for name, value in task.items() if value not in (None, ())}]}
    answer = client.request("POST", "/tasks/enqueue", json=body)
    columns = {name: COLUMNS[name] for name in _OF_A_NEW_ONE}
    if "existing" in answer["tasks"][0]:
        columns["EXISTING"] = "existing"
    show(answer if as_json else answer["tasks"], columns, as_json)


_OF_A_NEW_ONE: Final = ("ID", "TYPE", "QUEUE", "STATUS", "PRIORITY")


def _json(text: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="PAYLOAD") from None
