"""`asyncproc bulk` and `asyncproc operations`: what is done to all tasks that match."""

from collections.abc import Mapping
from typing import Any, Final

import click

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.filters import filtered
from asyncproc.commands.show import show
from asyncproc.core.asked import Action

COLUMNS: Final[Mapping[str, str]] = {
    "ID": "id",
    "ACTION": "action",
    "STATE": "state",
    "MATCHED": "matched",
    "DONE": "done",
    "SKIPPED": "skipped",
    "FILTER": "filter",
    "CREATED": "createdAt",
    "FINISHED": "finishedAt",
}


@click.command()
@click.argument("action", type=click.Choice([action.value for action in Action]))
@filtered
@click.option("--set-priority", type=int, help="Of changePriority.")
@click.option("--set-queue", help="Of move.")
@click.option("--run-at", help="Of postpone: not before this instant.")
@click.option("--delay", help="Of postpone: not before so much time has passed.")
@click.option("--rate", help="So many tasks a time at most, such as 100/s.")
@click.option("--all", "is_all", is_flag=True, help="Where nothing narrows it down.")
@click.option("--dry-run", is_flag=True, help="Only count what matches.")
@with_api
def bulk(
    client: Client,
    as_json: bool,
    action: str,
    narrowed: dict[str, Any],
    set_priority: int | None,
    set_queue: str | None,
    run_at: str | None,
    **asked: Any,
) -> None:
    """Do something to all tasks that match, in the background: see `asyncproc operations`."""
    change = {"action": action, "priority": set_priority, "queue": set_queue, "runAt": run_at, "delay": asked["delay"]}
    order(client, "/tasks/bulk", change | many(narrowed, asked), as_json)


def many(narrowed: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    return {"filter": narrowed, "all": asked["is_all"], "dryRun": asked["dry_run"], "rate": asked.get("rate")}


def order(client: Client, path: str, body: dict[str, Any], as_json: bool) -> None:
    """Post it without what was not asked for, and show the operation or the count."""
    show(client.request("POST", path, json={name: value for name, value in body.items() if value is not None}),
         as_json=as_json)  # fmt: skip


@click.group()
def operations() -> None:
    """Operations on all tasks that match a filter: list, show, cancel."""


@operations.command("list")
@with_api
def list_operations(client: Client, as_json: bool) -> None:
    """The latest operations, the newest first."""
    answer = client.request("GET", "/operations")
    show(answer if as_json else answer["operations"], COLUMNS, as_json)


@operations.command("show")
@click.argument("operation_id", metavar="ID")
@with_api
def show_operation(client: Client, as_json: bool, operation_id: str) -> None:
    """How far an operation has come."""
    show(client.request("GET", at("operations", operation_id)), as_json=as_json)


@operations.command("cancel")
@click.argument("operation_id", metavar="ID")
@with_api
def cancel_operation(client: Client, as_json: bool, operation_id: str) -> None:
    """Do nothing more of it; what is done stays done."""
    show(client.request("POST", at("operations", operation_id, "cancel")), as_json=as_json)
