"""Which attempts run in a process of their own, and which of those with nobody beside them."""

from typing import Final

REMEMBERED_S: Final = 600.0
"""A type that did not take its process down for this long is trusted again."""
MOST: Final = 1_000
TAKEN_ALONG: Final = 3
"""Deaths of its worker that prove nothing of a task, when the QueueActor died at the same time: whatever took that
down, the whole machine at worst, may have taken the worker along. What never survives comes to an end all the same."""


def runs_alone(losses: int) -> bool:
    """Of a task that was aboard when so many workers died. At first it is told apart by a process of its own; when
    that did not keep its worker alive, nobody else may be there."""
    return losses > 1


class Dangers:
    """Types of which an attempt lately cost its process: all their tasks are confined."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        """When each is trusted again; mostly there is none, and nobody needs to ask."""

    def note(self, type_name: str, now: float) -> None:
        self.until.pop(type_name, None)
        if len(self.until) >= MOST:
            del self.until[next(iter(self.until))]
        self.until[type_name] = now + REMEMBERED_S

    def has(self, type_name: str, now: float) -> bool:
        return self.until.get(type_name, 0.0) > now
