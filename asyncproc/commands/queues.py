"""`asyncproc queues`: look at queues, change them, hold them up, empty them."""

from collections.abc import Mapping
from typing import Any, Final

import click

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.pauses import pause_body, with_pause
from asyncproc.commands.settings import HELP, parse_settings
from asyncproc.commands.show import show

COLUMNS: Final[Mapping[str, str]] = {
    "NAME": "name",
    "WEIGHT": "settings.weight",
    "AGING": "settings.aging",
    "POOL": "settings.pool",
    "QUEUED": "counts.queued",
    "RUNNING": "counts.running",
    "SCHEDULED": "counts.scheduled",
    "RETRYING": "counts.retrying",
    "FAILED": "counts.failed",
    "PAUSED": "paused.since",
    "DRAINING": "drainingSince",
}


@click.group()
def queues() -> None:
    """Queues: list, show, set, create, delete, pause, resume, drain, purge."""


@queues.command("list")
@with_api
def list_queues(client: Client, as_json: bool) -> None:
    """All queues, and how they stand."""
    answer = client.request("GET", "/queues")
    show(answer if as_json else answer["queues"], COLUMNS, as_json)
    if answer["paused"] and not as_json:
        click.echo(f"everything is paused since {answer['paused']['since']}", err=True)


@queues.command("show")
@click.argument("name")
@with_api
def show_queue(client: Client, as_json: bool, name: str) -> None:
    """One queue: each setting with who said it (stored, config or code), and how the queue stands."""
    _show(client.request("GET", at("queues", name)), as_json)


@queues.command(epilog=HELP)
@click.argument("name")
@click.argument("settings", metavar="SETTING...", nargs=-1)
@with_api
def create(client: Client, as_json: bool, name: str, settings: tuple[str, ...]) -> None:
    """Create a queue with settings of its own."""
    _show(client.request("POST", "/queues", json={"name": name, **parse_settings(settings)}), as_json)


@queues.command("set", epilog=HELP)
@click.argument("name")
@click.argument("settings", metavar="SETTING...", nargs=-1, required=True)
@with_api
def set_queue(client: Client, as_json: bool, name: str, settings: tuple[str, ...]) -> None:
    """Change settings of a queue; in force when this returns."""
    _show(client.request("PATCH", at("queues", name), json=parse_settings(settings)), as_json)


@queues.command()
@click.argument("name")
@with_api
def delete(client: Client, as_json: bool, name: str) -> None:
    """Forget the stored settings of an empty queue."""
    client.request("DELETE", at("queues", name))
    show({"name": name, "deleted": True}, as_json=as_json)


@queues.command()
@click.argument("name")
@with_pause
@with_api
def pause(client: Client, as_json: bool, name: str, **options: Any) -> None:
    """Begin nothing more of a queue; what runs goes on."""
    _show(client.request("POST", at("queues", name, "pause"), json=pause_body(**options)), as_json)


@queues.command()
@click.argument("name")
@with_api
def resume(client: Client, as_json: bool, name: str) -> None:
    """End a pause or a drain."""
    _show(client.request("POST", at("queues", name, "resume")), as_json)


@queues.command()
@click.argument("name")
@with_api
def drain(client: Client, as_json: bool, name: str) -> None:
    """Take no new tasks into a queue; what is there runs out."""
    _show(client.request("POST", at("queues", name, "drain")), as_json)


@queues.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say how many tasks would be cancelled.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_api
def purge(client: Client, as_json: bool, name: str, dry_run: bool, yes: bool) -> None:
    """Cancel all that waits in a queue."""
    path = at("queues", name, "purge")
    if not dry_run and not yes:
        waiting = client.request("POST", path, json={"dryRun": True})["tasks"]
        click.confirm(f"cancel the {waiting} tasks that wait in queue {name}?", abort=True, err=True)
    show(client.request("POST", path, json={"dryRun": dry_run}), as_json=as_json)


def _show(queue: Any, as_json: bool) -> None:
    flat = queue if as_json else {**{key: queue[key] for key in queue if key != "settings"}, **queue["settings"]}
    show(flat, as_json=as_json)
