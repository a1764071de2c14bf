"""What `set` and `create` of queues and types take: `key=value`, in the keys of REST."""

import json
from collections.abc import Sequence
from typing import Any, Final

import click

_AS_TEXT: Final = frozenset(
    {
        "aging",
        "timeout",
        "softTimeout",
        "pool",
        "rate",
        "memory",
        "recycleAbove",
        "targetWait",
        "idleAfter",
        "retentionSucceeded",
        "retentionFailed",
        "retentionCancelled",
    }
)

HELP: Final = (
    "SETTING is key=value, such as weight=4, aging=30s or backOff.base=2s; key=null takes a stored value back. A group"
    " such as backOff, fairnessWeights or rateLimits is replaced as a whole."
)


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Raises `click.BadParameter`. What a value may be is for the API to say."""
    settings: dict[str, Any] = {}
    for text in given:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise click.BadParameter(f"{text!r} is not key=value", param_hint="SETTING")
        *parents, key = path.split(".", 1)
        target = settings.setdefault(parents[0], {}) if parents else settings
        if not isinstance(target, dict) or key in target:
            raise click.BadParameter(f"{path} is given twice", param_hint="SETTING")
        target[key] = _value(key if not parents else "", value)
    return settings


def _value(key: str, text: str) -> Any:
    if text == "null":
        return None
    if key in _AS_TEXT:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
