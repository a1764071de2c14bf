"""Pauses: of a queue, a task type, or everything."""

import getpass
from collections.abc import Callable
from typing import Any

import click

from asyncproc.commands.client import Client, with_api
from asyncproc.commands.show import show


def with_pause(command: Callable[..., None]) -> Callable[..., None]:
    """Adds what a pause takes."""
    for option in (
        click.option("--reason", default="", help="Why, for whoever looks at it."),
        click.option("--by", default=None, help="Who pauses it; default is you."),
        click.option("--until", help="An instant with time zone, such as 2026-11-25T18:00:00Z."),
        click.option("--for", "for_", metavar="DURATION", help="Such as 30m; without an end it lasts until resumed."),
    ):
        command = option(command)
    return command


def pause_body(reason: str, by: str | None, until: str | None, for_: str | None) -> dict[str, Any]:
    body = {"reason": reason, "by": _me() if by is None else by, "until": until, "for": for_}
    return {key: value for key, value in body.items() if value}


@click.command()
@with_pause
@with_api
def pause(client: Client, as_json: bool, **options: Any) -> None:
    """Begin nothing more, in any queue; what runs goes on."""
    show(client.request("POST", "/pause", json=pause_body(**options)), as_json=as_json)


@click.command()
@with_api
def resume(client: Client, as_json: bool) -> None:
    """End the pause of everything."""
    show(client.request("POST", "/resume"), as_json=as_json)


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""  # a user without a name, as in some containers
