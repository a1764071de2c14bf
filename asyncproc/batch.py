"""What a task type says of its batches."""

from dataclasses import dataclass
from datetime import timedelta

from asyncproc.core.batches import MAX_BATCH, MAX_WAIT_S


@dataclass(frozen=True, slots=True)
class Batch:
    """How many tasks one call of `process_batch` takes, and how long the first of them waits for others. Raises
    `ValueError` for what cannot be."""

    size: int = 32
    wait: timedelta | float = 0.0
    """In seconds where it is a number; 0: what is there goes at once."""

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_BATCH:
            raise ValueError(f"size is {self.size!r:.100}: it must be an int from 1 to {MAX_BATCH}")
        if not 0 <= self.wait_s <= MAX_WAIT_S:
            raise ValueError(f"wait is {self.wait!r:.100}: it must be between 0 and {MAX_WAIT_S:g} seconds")

    @property
    def wait_s(self) -> float:
        return self.wait.total_seconds() if isinstance(self.wait, timedelta) else float(self.wait)
