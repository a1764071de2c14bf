"""The options that narrow tasks down, the same for lists and for what is done to many."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from asyncproc.core.states import State

_OPTIONS: Final = (
    click.option("--state", multiple=True, type=click.Choice([state.value for state in State])),
    click.option("--type", multiple=True, help="The task type."),
    click.option("--queue", multiple=True),
    click.option("--priority", multiple=True, type=int),
    click.option("--created-by", "createdBy", multiple=True),
    click.option("--created-after", "createdAfter", help="From this instant on, such as 2026-11-25T09:00:00Z."),
    click.option("--created-before", "createdBefore", help="Before this instant."),
    click.option("--fingerprint", multiple=True, help="Of the error of failed tasks: see `asyncproc dead groups`."),
    click.option("--concurrency-key", "concurrencyKey", multiple=True),
    click.option("--fairness-key", "fairnessKey", multiple=True),
    click.option("--id", multiple=True, help="Of a task."),
    click.option("--payload", help="JSON that the payload contains, such as '{\"orderId\": 7}'."),
)
_NAMES: Final = (
    "state", "type", "queue", "priority", "createdBy", "createdAfter", "createdBefore", "fingerprint",
    "concurrencyKey", "fairnessKey", "id", "payload",
)  # fmt: skip


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options, each of which may be given several times, and hands the command what they ask for as
    `narrowed`."""

    @wraps(command)
    def call(*args: Any, **options: Any) -> None:
        asked = {name: options.pop(name) for name in _NAMES}
        narrowed = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items() if value}
        command(*args, narrowed=narrowed, **options)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
