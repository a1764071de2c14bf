"""`asyncproc rates`: rate limits that task types draw from."""

from collections.abc import Mapping
from typing import Any, Final

import click

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.show import show

COLUMNS: Final[Mapping[str, str]] = {
    "NAME": "name",
    "RATE": "rate",
    "BURST": "burst",
    "FROM": "from",
    "DRAWN BY": "drawnBy",
}


@click.group()
def rates() -> None:
    """Rate limits: list, show, set, delete."""


@rates.command("list")
@with_api
def list_rates(client: Client, as_json: bool) -> None:
    """All rate limits, and the task types that draw from them."""
    answer = client.request("GET", "/rate-limits")
    show(answer if as_json else answer["rateLimits"], COLUMNS, as_json)


@rates.command("show")
@click.argument("name")
@with_api
def show_rate(client: Client, as_json: bool, name: str) -> None:
    """One rate limit."""
    show(client.request("GET", at("rate-limits", name)), as_json=as_json)


@rates.command("set")
@click.argument("name")
@click.argument("rate")
@click.option("--burst", type=float, help="Units that can be drawn at once after a pause.")
@with_api
def set_rate(client: Client, as_json: bool, name: str, rate: str, burst: float | None) -> None:
    """Create or change a rate limit. RATE is such as 60/min; `types set TYPE rateLimits.NAME=1` draws from it."""
    body: dict[str, Any] = {"rate": rate} if burst is None else {"rate": rate, "burst": burst}
    show(client.request("PUT", at("rate-limits", name), json=body), as_json=as_json)


@rates.command()
@click.argument("name")
@with_api
def delete(client: Client, as_json: bool, name: str) -> None:
    """Forget a rate limit that no type draws from."""
    client.request("DELETE", at("rate-limits", name))
    show({"name": name, "deleted": True}, as_json=as_json)
