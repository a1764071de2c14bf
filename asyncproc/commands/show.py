"""What the commands print: a table for people, or the JSON as it came."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH: Final = 200
"""Columns where the output is no terminal: nothing is cut off in a pipe."""
_NOTHING: Final = "-"


def show(data: Any, columns: Mapping[str, str] | None = None, as_json: bool = False) -> None:
    """Print a list of objects as a table, one object as its keys and values.

    `columns` maps headings to keys, `settings.weight` for nested ones; None shows all keys of the one object.
    """
    if as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    if isinstance(data, Mapping):
        _print(_pairs(data, columns))
        return
    if not data:
        click.echo("none")
        return
    _print(_rows(data, columns or {key: key for key in data[0]}))


def _rows(data: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    table = _table(*columns)
    for item in data:
        table.add_row(*(_cell(_value(item, key)) for key in columns.values()))
    return table


def _pairs(data: Mapping[str, Any], columns: Mapping[str, str] | None) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, key in (columns or {key: key for key in data}).items():
        table.add_row(heading, _cell(_value(data, key)))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table)


def _value(item: Any, key: str) -> Any:
    for part in key.split("."):
        item = item.get(part) if isinstance(item, Mapping) else None
    return item


def _cell(value: Any) -> Text:
    # As text and not as markup: payloads and reasons are anybody's.
    return Text(printable(_text(value)))


def printable(text: str) -> str:
    """Without what would tell a terminal to do something."""
    return "".join(character if character.isprintable() or character == "\n" else "�" for character in text)


def _text(value: Any) -> str:
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping) and value.keys() == {"value", "from"}:
        return f"{_text(value['value'])} ({value['from']})"
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
