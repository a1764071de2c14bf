"""Durations in Go's syntax, which the seed's `backOffDuration` and the configuration are written in."""

import re
from typing import Final

_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_ALLOWED: Final = "must be a duration such as 5s, 1m30s, 250ms or 1.5h"


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `1m30s`; `0` needs no unit. Raises `ValueError` saying what is allowed."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    if not rest or len(rest) > 64:
        raise ValueError(_ALLOWED)
    seconds, end = 0.0, 0
    for part in _PART.finditer(rest):
        if part.start() != end:
            break
        seconds, end = seconds + float(part[1]) * _UNIT_S[part[2]], part.end()
    if end != len(rest):
        raise ValueError(_ALLOWED)
    return sign * seconds


def format_duration(seconds: float) -> str:
    """The same syntax back, as short as it goes: `1m30s`, `5s`, `250ms`."""
    if seconds < 1:
        # No exponent, which the syntax does not know, however short it is.
        return "0s" if seconds == 0 else f"{seconds * 1000:.6f}".rstrip("0").rstrip(".") + "ms"
    hours, rest = divmod(round(seconds, 3), 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours:.0f}h" if hours else "", f"{minutes:.0f}m" if minutes else "", f"{left:g}s" if left else ""]
    return "".join(parts)
