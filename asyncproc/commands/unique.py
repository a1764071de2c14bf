"""The options that make a task the only one of its kind."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from asyncproc.core.unique import OnConflict


def unique_options(command: Callable[..., None]) -> Callable[..., None]:
    """Hands the command `unique` as the API takes it, None where nothing is asked for."""

    @click.option(
        "--unique/--not-unique", "whole", default=None, help="By its payload; or not, whatever its type says."
    )
    @click.option("--unique-key", help="By this key instead.")
    @click.option("--unique-field", multiple=True, help="By this field of the payload, such as account.id. Repeatable.")
    @click.option(
        "--unique-state", multiple=True, help="A state in which another counts; or unfinished, or waiting. Repeatable."
    )
    @click.option("--unique-period", help="Others count for so long, such as 1h.")
    @click.option("--on-conflict", type=click.Choice([each.value for each in OnConflict]))
    @wraps(command)
    def call(
        *args: Any,
        whole: bool | None,
        unique_key: str | None,
        unique_field: tuple[str, ...],
        unique_state: tuple[str, ...],
        unique_period: str | None,
        on_conflict: str | None,
        **options: Any,
    ) -> None:
        given = {
            "key": unique_key,
            "fields": list(unique_field) or None,
            "states": list(unique_state) or None,
            "period": unique_period,
            "onConflict": on_conflict,
        }
        asked: dict[str, Any] | bool | None = {name: value for name, value in given.items() if value is not None}
        if whole is False:
            if asked:
                raise click.UsageError("--not-unique goes with none of the other options")
            asked = False
        elif not asked and not whole:
            asked = None
        command(*args, unique=asked, **options)

    return call
