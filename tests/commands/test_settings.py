"""`key=value` as REST takes it."""

from typing import Any

import click
import pytest

from asyncproc.commands.settings import parse_settings


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (["weight=4", "maxRunning=off"], {"weight": 4, "maxRunning": "off"}),
        (
            ["aging=30s", "timeout=0s"],
            {"aging": "30s", "timeout": "0s"},
        ),
        (["pool=default", "weight=null"], {"pool": "default", "weight": None}),
        (["backOff.base=2s", "backOff.factor=3"], {"backOff": {"base": "2s", "factor": 3}}),
        (["rateLimits.smtp.relay=2.5"], {"rateLimits": {"smtp.relay": 2.5}}),
        (['fairnessWeights={"ada": 2}'], {"fairnessWeights": {"ada": 2}}),
    ],
)
def test_values_are_what_rest_takes(given: list[str], settings: dict[str, Any]) -> None:
    assert parse_settings(given) == settings


@pytest.mark.parametrize("given", [["weight"], ["=4"], ["weight=1", "weight=2"], ["backOff=1", "backOff.base=2s"]])
def test_what_is_no_setting_is_said(given: list[str]) -> None:
    with pytest.raises(click.BadParameter):
        parse_settings(given)
