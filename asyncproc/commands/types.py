"""`asyncproc types`: look at task types, limit them, hold them up."""

from collections.abc import Mapping
from typing import Any, Final

import click

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.pauses import pause_body, with_pause
from asyncproc.commands.settings import HELP, parse_settings
from asyncproc.commands.show import show

COLUMNS: Final[Mapping[str, str]] = {
    "NAME": "name",
    "QUEUE": "queue",
    "PRIORITY": "settings.priority",
    "RETRIES": "settings.maxTaskRetry",
    "TIMEOUT": "settings.timeout",
    "MAX RUNNING": "settings.maxRunning",
    "RATE LIMITS": "settings.rateLimits",
    "PAUSED": "paused.since",
}


@click.group()
def types() -> None:
    """Task types: list, show, set, reset, pause, resume."""


@types.command("list")
@with_api
def list_types(client: Client, as_json: bool) -> None:
    """All task types, and what holds for their tasks."""
    answer = client.request("GET", "/types")
    show(answer if as_json else answer["types"], COLUMNS, as_json)


@types.command("show")
@click.argument("name")
@with_api
def show_type(client: Client, as_json: bool, name: str) -> None:
    """One task type: each setting with who said it (stored, config or code)."""
    _show(client.request("GET", at("types", name)), as_json)


@types.command("set", epilog=HELP)
@click.argument("name")
@click.argument("settings", metavar="SETTING...", nargs=-1, required=True)
@with_api
def set_type(client: Client, as_json: bool, name: str, settings: tuple[str, ...]) -> None:
    """Change settings of a task type; in force when this returns."""
    _show(client.request("PATCH", at("types", name), json=parse_settings(settings)), as_json)


@types.command()
@click.argument("name")
@with_api
def reset(client: Client, as_json: bool, name: str) -> None:
    """Forget the stored settings of a task type, and its pause."""
    client.request("DELETE", at("types", name))
    show({"name": name, "reset": True}, as_json=as_json)


@types.command()
@click.argument("name")
@with_pause
@with_api
def pause(client: Client, as_json: bool, name: str, **options: Any) -> None:
    """Begin no more tasks of a type; what runs goes on."""
    _show(client.request("POST", at("types", name, "pause"), json=pause_body(**options)), as_json)


@types.command()
@click.argument("name")
@with_api
def resume(client: Client, as_json: bool, name: str) -> None:
    """End a pause."""
    _show(client.request("POST", at("types", name, "resume")), as_json)


def _show(found: Any, as_json: bool) -> None:
    flat = found if as_json else {**{key: found[key] for key in found if key != "settings"}, **found["settings"]}
    show(flat, as_json=as_json)
