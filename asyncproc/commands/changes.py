"""`asyncproc tasks change` and `asyncproc tasks explain`."""

from typing import Any

import click
from pydantic.alias_generators import to_camel

from asyncproc.commands.client import Client, at, with_api
from asyncproc.commands.show import show


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--priority", type=int, help="Higher is sooner.")
@click.option("--queue")
@click.option("--run-at", help="Not before this instant, such as 2026-11-25T09:00:00Z.")
@click.option("--delay", help="Not before so much time has passed, such as 10m.")
@click.option("--run-now", is_flag=True, default=None, help="It takes its place among those that are ready.")
@with_api
def change(client: Client, as_json: bool, task_id: str, **asked: Any) -> None:
    """Change a task that waits: what is not named stays as it is."""
    body = {to_camel(name): value for name, value in asked.items() if value is not None}
    show(client.request("PATCH", at("task", task_id), json=body), as_json=as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@with_api
def explain(client: Client, as_json: bool, task_id: str) -> None:
    """Why a task is not running: its position, what is ahead, what blocks it, when it may start."""
    answer = client.request("GET", at("task", task_id, "explain"))
    if as_json:
        show(answer, as_json=True)
        return
    about = "about " if answer["estimated"] else ""
    position = answer["position"]
    ahead = ", ".join(f"{each['count']} {each['taskType']}" for each in answer["ahead"])
    show(
        {
            "id": answer["id"],
            "status": answer["status"],
            "queue": answer["queue"],
            "position": None if position is None else f"{about}{position}",
            "ahead": ahead,
            "blocked by": "\n".join(reason["text"] for reason in answer["reasons"]),
            "slots": answer["slots"],
            "may start": answer["estimatedStart"],
        }
    )
