"""What is known of a bound on waiting tasks when new ones come: a snapshot, made for one step."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from asyncproc.core.steering import Overflow, QueueRules, Rules
from asyncproc.core.task import TaskId

Place: TypeAlias = tuple[str, str]
"""A queue, and a concurrency key of it; the empty key is all of the queue."""

Waiter: TypeAlias = tuple[TaskId, int, str]
"""A task that waits in the table: id, lease, concurrency key."""

SPARE: Final = 100
"""Waiting tasks that are read beyond those that new ones may push out: a bound that was lowered is reached so."""


@dataclass(slots=True)
class Crowd:
    """Those who wait in one place, and may not be more than `limit`."""

    limit: int
    policy: Overflow
    coming: int = 0
    """New tasks of the step, or more."""
    waiting: int | None = None
    """How many wait, or more; None where that is to be counted in the table first."""
    oldest: deque[Waiter] = field(default_factory=deque)
    """In the order of their making: as many as may have to go."""

    @property
    def to_read(self) -> int:
        """How many of the oldest are asked for."""
        return self.coming + SPARE if self.policy is Overflow.CANCEL_OLDEST else 0


def bounded(rules: Rules) -> dict[str, QueueRules]:
    """The queues in which new tasks may find no room."""
    return {name: queue for name, queue in rules.queues.items() if queue.is_bounded}
