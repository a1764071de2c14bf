"""When the memory of a node is about to end, by what Ray's own monitor looks at."""

import os
from typing import Final

from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory

LOOK_S: Final = 0.1
MARGIN: Final = 0.03
MOST_MARGIN: Final = 2 << 30
"""Bytes; a share of a large machine is more than anybody takes between two looks."""
_SHARE: Final = "RAY_memory_usage_threshold"
_FREE: Final = "RAY_min_memory_free_bytes"


class MemoryLine:
    """A little below the line at which Ray ends processes, whichever these are: the QueueActor comes first, being one
    that it can start again."""

    def __init__(self) -> None:
        total = get_system_memory()
        share = float(os.environ.get(_SHARE, "0.95"))
        free = int(os.environ.get(_FREE, "-1"))
        self.margin = min(int(MARGIN * total), MOST_MARGIN)
        """Bytes; to end a process that takes less would not help."""
        self._line = max(share * total, total - free if free >= 0 else 0.0) - self.margin

    def is_crossed(self) -> bool:
        return bool(get_used_memory() > self._line)  # type: ignore[no-untyped-call]  # Ray does not annotate it
