"""What the QueueActor answers, in types that survive the way: a Ray call returns them, it does not raise them."""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from asyncproc.core.states import State
from asyncproc.core.task import NewTask, TaskId
from asyncproc.errors import AsyncprocError, Overloaded, StorageUnavailable, TaskRefused


class Cause(Enum):
    STORAGE = "storage"
    OVERLOAD = "overload"
    TASK = "task"


class Refusal(NamedTuple):
    """Why an enqueue was not committed. `tasks` are those it concerns; empty means all of the call."""

    cause: Cause
    text: str
    waiting: int = 0
    tasks: frozenset[TaskId] = frozenset()

    def concerns(self, tasks: Iterable[NewTask]) -> bool:
        return not self.tasks or any(task[0] in self.tasks for task in tasks)

    def error(self) -> AsyncprocError:
        if self.cause is Cause.STORAGE:
            return StorageUnavailable(self.text)
        return Overloaded(self.waiting) if self.cause is Cause.OVERLOAD else TaskRefused(self.text)


class RetryAnswer(NamedTuple):
    """`state` is the one the task had; None where there is no such task among the finished."""

    accepted: bool
    state: State | None


class Health(NamedTuple):
    """`storage` and `workers` are `ok`-like words for people; the booleans are what counts."""

    storage_ok: bool
    storage: str
    workers: int
    """Workers that answer."""
    epoch: int
