"""`asyncproc dead`: tasks that failed for good."""

from collections.abc import Mapping
from typing import Any, Final

import click

from asyncproc.commands.client import Client, with_api
from asyncproc.commands.filters import filtered
from asyncproc.commands.operations import many, order
from asyncproc.commands.show import show
from asyncproc.commands.tasks import show_page

GROUPS: Final[Mapping[str, str]] = {
    "FINGERPRINT": "fingerprint",
    "TYPE": "taskType",
    "COUNT": "count",
    "FIRST": "firstFailedAt",
    "LAST": "lastFailedAt",
    "EXAMPLE": "example",
    "ERROR": "error",
}


@click.group()
def dead() -> None:
    """Dead letters, tasks that failed for good: list, group, redrive, discard."""


@dead.command("list")
@filtered
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--cursor", help="`next` of the page before.")
@with_api
def list_dead(client: Client, as_json: bool, narrowed: dict[str, Any], **page: Any) -> None:
    """Failed tasks that match all that is asked for, newest first."""
    show_page(client.request("GET", "/dead-letters", params=narrowed | page), as_json)


@dead.command()
@filtered
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@with_api
def groups(client: Client, as_json: bool, narrowed: dict[str, Any], limit: int) -> None:
    """Failed tasks by what went wrong, the largest group first."""
    answer = client.request("GET", "/dead-letters/groups", params={**narrowed, "limit": limit})
    show(answer if as_json else answer["groups"], GROUPS, as_json)


@dead.command()
@filtered
@click.option("--rate", help="So many tasks a time at most, such as 100/s.")
@click.option("--all", "is_all", is_flag=True, help="Where nothing narrows it down.")
@click.option("--dry-run", is_flag=True, help="Only count what matches.")
@with_api
def redrive(client: Client, as_json: bool, narrowed: dict[str, Any], **asked: Any) -> None:
    """Run failed tasks again, with all their attempts before them."""
    order(client, "/dead-letters/redrive", many(narrowed, asked), as_json)


@dead.command()
@filtered
@click.option("--all", "is_all", is_flag=True, help="Where nothing narrows it down.")
@click.option("--dry-run", is_flag=True, help="Only count what matches.")
@with_api
def discard(client: Client, as_json: bool, narrowed: dict[str, Any], **asked: Any) -> None:
    """Delete failed tasks for good."""
    order(client, "/dead-letters/discard", many(narrowed, asked), as_json)
