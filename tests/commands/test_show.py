"""Tables for people, JSON for programs."""

import json

import pytest

from asyncproc.commands.show import show

ROWS = [{"name": "mail", "settings": {"weight": {"value": 2, "from": "stored"}}, "empty": False, "paused": None}]


def test_json_is_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, {"NAME": "name"}, as_json=True)

    assert json.loads(capsys.readouterr().out) == ROWS


def test_a_table_has_the_columns_that_were_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, {"NAME": "name", "WEIGHT": "settings.weight", "EMPTY": "empty", "PAUSED": "paused.reason"})

    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "WEIGHT", "EMPTY", "PAUSED"]
    assert row.split() == ["mail", "2", "(stored)", "no", "-"]


def test_one_object_is_shown_by_key(capsys: pytest.CaptureFixture[str]) -> None:
    show({"id": "7", "payload": {"a": [1]}})

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["id", "7"],
        ["payload", '{"a":', "[1]}"],
    ]


def test_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show([], {"NAME": "name"})

    assert capsys.readouterr().out == "none\n"


def test_a_value_is_neither_markup_nor_a_command_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"name": "[red]x[/red]\x1b[31m"}], {"NAME": "name"})

    assert "[red]x[/red]�[31m" in capsys.readouterr().out
