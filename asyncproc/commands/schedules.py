"""`asyncproc schedules`: tasks that are made by the clock."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
from pydantic.alias_generators import to_camel

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.pauses import pause_body, with_pause
from asyncproc.commands.show import show

COLUMNS: Final[Mapping[str, str]] = {
    "NAME": "name",
    "TYPE": "taskType",
    "CRON": "cron",
    "EVERY": "every",
    "ZONE": "timeZone",
    "OVERLAP": "overlap",
    "FROM": "from",
    "NEXT": "next",
    "LAST": "last",
    "PAUSED": "paused.since",
}
_TICKS: Final[Mapping[str, str]] = {
    "DUE": "dueAt",
    "KIND": "kind",
    "OUTCOME": "outcome",
    "TASK": "taskId",
    "DECIDED": "decidedAt",
}


@click.group()
def schedules() -> None:
    """Schedules: list, show, create, set, delete, pause, resume, trigger, backfill."""


def _with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Adds what a schedule is made of; what it may be is for the API to say."""
    for option in (
        click.option("--cron", help="Minute, hour, day of month, month, day of week: '30 9 * * MON-FRI'."),
        click.option("--every", metavar="DURATION", help="In place of a cron, such as 15m."),
        click.option("--time-zone", help="Whose clocks the cron goes by, such as Europe/Berlin; default UTC."),
        click.option("--overlap", metavar="allow|skip|queue", help="While its last task has not ended."),
        click.option("--catch-up", metavar="none|last|all", help="Of ticks missed while the system was down."),
        click.option("--catch-up-within", metavar="DURATION", help="How old a tick is at most that is made up for."),
        click.option("--instant-field", help="The field of the payload that gets the instant of the tick."),
        click.option("--queue"),
        click.option("--priority", type=int),
        click.option("--timeout", metavar="DURATION"),
        click.option("--soft-timeout", metavar="DURATION"),
        click.option("--back-off-duration", metavar="DURATION"),
        click.option("--concurrency-key"),
        click.option("--fairness-key"),
        click.option("--affinity-key"),
        click.option("--resources", metavar="JSON", help='What its worker is to have for it: {"num_gpus": 0.5}.'),
    ):
        command = option(command)
    return command


@schedules.command("list")
@with_api
def list_schedules(client: Client, as_json: bool) -> None:
    """All schedules, each with its next tick and its last one."""
    answer = client.request("GET", "/schedules")
    show(answer if as_json else [_row(found) for found in answer["schedules"]], COLUMNS, as_json)


@schedules.command("show")
@click.argument("name")
@with_api
def show_schedule(client: Client, as_json: bool, name: str) -> None:
    """One schedule: its next ticks, and what became of its last ones."""
    found = client.request("GET", at("schedules", name))
    _show(found, as_json)
    if not as_json and found["ticks"]:
        click.echo()
        show(found["ticks"], _TICKS)


@schedules.command()
@click.argument("name")
@click.argument("task_type", metavar="TYPE")
@click.argument("payload", default="{}")
@_with_fields
@with_api
def create(client: Client, as_json: bool, name: str, task_type: str, payload: str, **fields: Any) -> None:
    """Create a schedule of tasks of a TYPE with a PAYLOAD, which is JSON."""
    body = {"name": name, "taskType": task_type, "payload": _parsed(payload), **_said(fields)}
    _show(client.request("POST", "/schedules", json=body), as_json)


@schedules.command("set")
@click.argument("name")
@click.option("--task-type")
@click.option("--payload", help="JSON, in place of the one it has.")
@_with_fields
@with_api
def set_schedule(client: Client, as_json: bool, name: str, payload: str | None, **fields: Any) -> None:
    """Change a schedule: what is not named stays as it is, `null` takes it back."""
    body = _said(fields) if payload is None else {"payload": _parsed(payload), **_said(fields)}
    _show(client.request("PATCH", at("schedules", name), json=body), as_json)


@schedules.command()
@click.argument("name")
@with_api
def delete(client: Client, as_json: bool, name: str) -> None:
    """Forget a schedule; the tasks that it made stay."""
    client.request("DELETE", at("schedules", name))
    show({"name": name, "deleted": True}, as_json=as_json)


@schedules.command()
@click.argument("name")
@with_pause
@with_api
def pause(client: Client, as_json: bool, name: str, **options: Any) -> None:
    """Let its ticks pass without a task."""
    _show(client.request("POST", at("schedules", name, "pause"), json=pause_body(**options)), as_json)


@schedules.command()
@click.argument("name")
@with_api
def resume(client: Client, as_json: bool, name: str) -> None:
    """End a pause; what was due in the meantime is over."""
    _show(client.request("POST", at("schedules", name, "resume")), as_json)


@schedules.command()
@click.argument("name")
@with_api
def trigger(client: Client, as_json: bool, name: str) -> None:
    """Make its task now."""
    show(client.request("POST", at("schedules", name, "trigger")), as_json=as_json)


@schedules.command()
@click.argument("name")
@click.argument("from_", metavar="FROM")
@click.argument("to")
@click.option("--dry-run", is_flag=True, help="Only count the ticks.")
@with_api
def backfill(client: Client, as_json: bool, name: str, from_: str, to: str, dry_run: bool) -> None:
    """Make the tasks of the ticks from one instant on and before another, such as 2026-11-01T00:00:00Z."""
    body = {"from": from_, "to": to, "dryRun": dry_run}
    show(client.request("POST", at("schedules", name, "backfill"), json=body), as_json=as_json)


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    said = {to_camel(name): value for name, value in fields.items() if value is not None}
    if "resources" in said:
        said["resources"] = _parsed(said["resources"], "--resources")
    return {name: None if value == "null" else value for name, value in said.items()}


def _parsed(text: str, of: str = "PAYLOAD") -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint=of) from None


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    last = found["ticks"][0] if found["ticks"] else None
    shown = None if last is None else f"{last['dueAt']} {last['outcome']}"
    return {**found, "next": found["next"][0] if found["next"] else None, "last": shown}


def _show(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        show(found, as_json=True)
        return
    show({key: "\n".join(value) if key == "next" else value for key, value in found.items() if key != "ticks"})
