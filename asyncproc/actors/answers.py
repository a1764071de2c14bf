"""What the QueueActor answers, in types that survive the way: a Ray call returns them, it does not raise them."""

from collections.abc import Awaitable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple, TypeVar

from asyncproc.core.task import NewTask, TaskId
from asyncproc.errors import (
    AsyncprocError,
    DiskNearlyFull,
    Full,
    KeyReused,
    Overloaded,
    QueueDraining,
    QueueFull,
    SettingsRefused,
    StorageUnavailable,
    TasksRejected,
    TooManyOperations,
    UniqueConflict,
)

A = TypeVar("A")


class Cause(Enum):
    STORAGE = "storage"
    OVERLOAD = "overload"
    TASK = "task"
    DISK = "disk"
    KEY = "key"
    OPERATIONS = "operations"
    DRAINING = "draining"
    SETTINGS = "settings"
    UNIQUE = "unique"
    FULL = "full"


class Refusal(NamedTuple):
    """Why an enqueue was not committed. `rejected` says it by task; where it is empty, all of the call is meant."""

    cause: Cause
    text: str
    waiting: int = 0
    rejected: tuple[tuple[TaskId, str], ...] = ()
    room: tuple[int, int] = (0, 0)
    """Bytes that are free on a disk that is nearly full, and that should be."""
    names: tuple[str, ...] = ()
    """Queues that are drained, or the kind of refused settings."""
    holders: tuple[tuple[int | None, tuple[TaskId, str]], ...] = ()
    """By index of the task in its request, the id and state of the one that has its unique key."""
    full: tuple[Full, ...] = ()
    """The requests for which there was no room."""

    @classmethod
    def of(cls, error: AsyncprocError) -> "Refusal":
        if isinstance(error, Overloaded):
            return cls(Cause.OVERLOAD, str(error), error.waiting)
        if isinstance(error, TooManyOperations):
            return cls(Cause.OPERATIONS, str(error), error.running)
        if isinstance(error, DiskNearlyFull):
            return cls(Cause.DISK, str(error), room=(error.free_bytes, error.min_bytes))
        if isinstance(error, QueueDraining):
            rejected = tuple((task_id, "") for task_id in error.task_ids)
            return cls(Cause.DRAINING, str(error), rejected=rejected, names=error.queues)
        if isinstance(error, QueueFull):
            rejected = tuple((task_id, "") for full in error.full for task_id in full.task_ids)
            return cls(Cause.FULL, str(error), rejected=rejected, full=error.full)
        if isinstance(error, SettingsRefused):
            return cls(Cause.SETTINGS, str(error), names=(error.kind,))
        if isinstance(error, UniqueConflict):
            return cls(Cause.UNIQUE, str(error), holders=tuple(error.holders.items()))
        if isinstance(error, TasksRejected):
            return cls(Cause.TASK, str(error), rejected=tuple(error.causes.items()))
        return cls(Cause.STORAGE, error.cause if isinstance(error, StorageUnavailable) else str(error))

    def concerns(self, tasks: Iterable[NewTask]) -> bool:
        if not self.rejected:
            return True
        rejected = {task_id for task_id, _ in self.rejected}
        return any(task[0] in rejected for task in tasks)

    def error(self, tasks: Sequence[NewTask] = ()) -> AsyncprocError:
        """`tasks` are those of the request that is answered."""
        if self.cause is Cause.STORAGE:
            return StorageUnavailable(self.text)
        if self.cause is Cause.OVERLOAD:
            return Overloaded(self.waiting)
        if self.cause is Cause.OPERATIONS:
            return TooManyOperations(self.waiting)
        if self.cause is Cause.DISK:
            return DiskNearlyFull(*self.room)
        if self.cause is Cause.DRAINING:
            return QueueDraining(self.names, tuple(task_id for task_id, _ in self.rejected))
        if self.cause is Cause.FULL:
            ids = [task[0] for task in tasks]
            own = tuple(full for full in self.full if full.first in ids) or self.full
            return QueueFull(own, ids.index(own[0].first) if own[0].first in ids else None)
        if self.cause is Cause.SETTINGS:
            return SettingsRefused(self.names[0], self.text)
        if self.cause is Cause.UNIQUE:
            return UniqueConflict(dict(self.holders))
        if self.cause is Cause.KEY:
            return KeyReused(self.text)
        return TasksRejected(dict(self.rejected))


class Cancelled(Enum):
    """What a wish to cancel came to."""

    ENDED = "ended"
    ASKED = "asked"
    """It runs, and is cancelled unless it succeeds."""
    GONE = "gone"
    """No task of that id waits or runs."""


async def or_refusal(call: Awaitable[A]) -> A | Refusal:
    try:
        return await call
    except AsyncprocError as error:
        return Refusal.of(error)


K = TypeVar("K")


def expect(answer: object, kind: type[K]) -> K:
    """What was asked for is answered by its kind and no other. Raises `TypeError`: that is a defect."""
    if not isinstance(answer, kind):
        raise TypeError(f"asked for {kind.__name__}, answered {type(answer).__name__}")
    return answer


class Health(NamedTuple):
    """`storage` and `workers` are `ok`-like words for people; the booleans are what counts."""

    storage_ok: bool
    storage: str
    workers: int
    """Workers that answer."""
    epoch: int
    shortage: str = ""
    """Why no new tasks are taken though all is well otherwise; empty where they are."""
    unknown_types: tuple[str, ...] = ()
    """Types of which tasks wait for a worker that knows them."""
    wants_workers: bool = True
    """False where all pools are scaled down to none."""
    warnings: tuple[str, ...] = ()
    """Pools whose workers cannot start, and why."""
