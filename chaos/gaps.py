"""How long nothing began after each interruption, by the ledger of the tasks."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Final

WINDOW_S: Final = 15.0
"""What comes later is not the doing of that interruption."""


def gaps(starts: Sequence[float], interruptions: Sequence[float], others: Sequence[float]) -> list[float]:
    """For each interruption the longest time without a start, until the next of `others` or the end of the window.

    `starts` are in order. An interruption after which nothing more was to begin says nothing and is left out.
    """
    ends = sorted(others)
    found = []
    for at in interruptions:
        until = min([at + WINDOW_S, *ends[bisect_left(ends, at + 1e-6) : bisect_left(ends, at + 1e-6) + 1]])
        first, last = bisect_left(starts, at), bisect_left(starts, until)
        if first == len(starts):
            continue
        # The start beyond the window ends a gap that reaches into it.
        seen = [at, *starts[first : last + 1]]
        found.append(max(later - earlier for earlier, later in pairwise(seen)))
    return found


def share(values: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(part * len(ordered)) - 1)]
