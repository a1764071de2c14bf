"""`asyncproc pools`: look at pools of workers, make, change and end them."""

from collections.abc import Mapping
from typing import Any, Final

import click

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.settings import parse_settings
from asyncproc.commands.show import show

COLUMNS: Final[Mapping[str, str]] = {
    "NAME": "name",
    "QUEUES": "settings.queues",
    "WORKERS": "settings.workers",
    "PRESENT": "workers.present",
    "STARTING": "workers.starting",
    "LEAVING": "workers.leaving",
    "WANTED": "workers.wanted",
    "WHY": "workers.reason",
    "PROBLEM": "problem",
}
HELP: Final = (
    "SETTING is key=value, such as workers=3, workers.min=0, workers.max=6, memory=2GiB, numGpus=0.5 or"
    " queues='[\"films\"]'; key=null takes a stored value back. A group such as workers, resources or environment is"
    " replaced as a whole."
)


@click.group()
def pools() -> None:
    """Pools of workers: list, show, set, create, delete."""


@pools.command("list")
@with_api
def list_pools(client: Client, as_json: bool) -> None:
    """All pools: workers present, workers wanted, and why."""
    answer = client.request("GET", "/pools")
    show(answer if as_json else answer["pools"], COLUMNS, as_json)


@pools.command("show")
@click.argument("name")
@with_api
def show_pool(client: Client, as_json: bool, name: str) -> None:
    """One pool: each setting with who said it, its workers, and the last decisions on how many there should be."""
    _show(client.request("GET", at("pools", name)), as_json)


@pools.command(epilog=HELP)
@click.argument("name")
@click.argument("settings", metavar="SETTING...", nargs=-1)
@with_api
def create(client: Client, as_json: bool, name: str, settings: tuple[str, ...]) -> None:
    """Create a pool."""
    _show(client.request("POST", "/pools", json={"name": name, **parse_settings(settings)}), as_json)


@pools.command("set", epilog=HELP)
@click.argument("name")
@click.argument("settings", metavar="SETTING...", nargs=-1, required=True)
@with_api
def set_pool(client: Client, as_json: bool, name: str, settings: tuple[str, ...]) -> None:
    """Change settings of a pool. Workers that are made otherwise are replaced one by one, and finish what they run."""
    _show(client.request("PATCH", at("pools", name), json=parse_settings(settings)), as_json)


@pools.command()
@click.argument("name")
@with_api
def delete(client: Client, as_json: bool, name: str) -> None:
    """Forget the stored settings of a pool; one that only they made ends, and its workers finish what they run."""
    client.request("DELETE", at("pools", name))
    show({"name": name, "deleted": True}, as_json=as_json)


def _show(pool: Any, as_json: bool) -> None:
    if as_json:
        show(pool, as_json=True)
        return
    decisions = "\n".join(f"{each['at']} {each['workers']}: {each['reason']}" for each in pool["decisions"][:5])
    heads = {key: pool[key] for key in pool if key not in ("settings", "workers", "decisions")}
    show({**heads, **pool["workers"], "decisions": decisions, **pool["settings"]})
