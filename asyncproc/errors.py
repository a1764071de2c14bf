"""Errors that cross a layer. Each says in its message what the reader can do next."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID


class AsyncprocError(Exception):
    """Anything this package raises on purpose."""


@dataclass(eq=False)
class InvalidTransition(AsyncprocError):
    """The task is in a state from which this cannot happen."""

    state: str
    trigger: str

    def __str__(self) -> str:
        return f"a {self.state} task cannot {self.trigger}"


@dataclass(eq=False)
class ConfigError(AsyncprocError):
    """The configuration cannot be used; one line per key that is wrong."""

    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.problems)


@dataclass(eq=False)
class StorageUnavailable(AsyncprocError):
    """Postgres does not answer: nothing was decided, or nobody knows yet."""

    cause: str

    def __str__(self) -> str:
        return f"Postgres does not answer ({self.cause}); retry with the same request"


@dataclass(eq=False)
class EpochLost(AsyncprocError):
    """Another QueueActor has taken over: this one must stop at once."""

    epoch: int

    def __str__(self) -> str:
        return f"epoch {self.epoch} is over: another QueueActor reigns, this one stops"


@dataclass(eq=False)
class SchemaTooNew(AsyncprocError):
    """The database was migrated by a newer release than this one."""

    found: int
    known: int

    def __str__(self) -> str:
        return f"the schema is at version {self.found}, this release knows {self.known}: install the newer release"


@dataclass(eq=False)
class Overloaded(AsyncprocError):
    """More new tasks wait for their commit than the QueueActor takes; nothing of the request was enqueued."""

    waiting: int

    def __str__(self) -> str:
        return f"{self.waiting} new tasks wait to be committed already: send the request again a little later"


@dataclass(eq=False)
class TooManyRequests(AsyncprocError):
    """One replica of the API has as many requests of this kind in hand as it takes; this one was not looked at."""

    doing: str
    requests: int
    bytes: int
    limit: str

    def __str__(self) -> str:
        size = f" with {_mib(self.bytes)}" if self.bytes else ""
        return (
            f"{self.requests} requests {self.doing}{size} are in hand already ({self.limit}): send it again a bit later"
        )


@dataclass(eq=False)
class TooSlow(AsyncprocError):
    """Those before it wait for so long already that this request would hardly be committed in time; it was not looked
    at."""

    waited_s: float

    def __str__(self) -> str:
        return (
            f"requests to enqueue have waited for {self.waited_s:.1f} s already (api.enqueueTimeout): send it again a"
            " bit later"
        )


@dataclass(eq=False)
class DiskNearlyFull(AsyncprocError):
    """No new tasks are taken before there is room again; what was taken before goes on."""

    free_bytes: int
    min_bytes: int

    def __str__(self) -> str:
        return (
            f"the disk of Postgres is nearly full: {_mib(self.free_bytes)} are free, new tasks are taken from"
            f" {_mib(self.min_bytes)} on (storage.minFreeBytes)"
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


@dataclass(eq=False)
class TooManyOperations(AsyncprocError):
    """No further operation on many tasks is begun before one of those that run has ended."""

    running: int

    def __str__(self) -> str:
        return f"{self.running} operations run already: wait for one to end, or cancel one"


@dataclass(eq=False)
class KeyReused(AsyncprocError):
    """An idempotency key stands for one request, and this is another; nothing of it was enqueued."""

    key: str

    def __str__(self) -> str:
        return (
            f"Idempotency-Key {self.key[:100]!r} came with another body before: send that body again to get its answer,"
            " or this one with a new key"
        )


@dataclass(eq=False)
class UniqueConflict(AsyncprocError):
    """The unique keys of some tasks of a request are held by others: by index, the id and the state of each holder;
    without an index that of a task that was to be run again. Nothing of the request was done."""

    holders: Mapping[int | None, tuple[bytes, str]]

    def __str__(self) -> str:
        named = [
            f"{'' if index is None else f'tasks[{index}].'}unique: {self.problem(index)}"
            for index in list(self.holders)[:10]
        ]
        more = len(self.holders) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more else "")

    def problem(self, index: int | None) -> str:
        task_id, state = self.holders[index]
        return f"task {UUID(bytes=task_id)} ({state}) has the same key already"


@dataclass(eq=False)
class QueueDraining(AsyncprocError):
    """A queue takes no new tasks until it is resumed; nothing that came with these was enqueued."""

    queues: tuple[str, ...]
    task_ids: tuple[bytes, ...]

    def __str__(self) -> str:
        named = ", ".join(self.queues[:10])
        return f"queue {named} is drained and takes no new tasks: resume it, or enqueue to another one"


class Full(NamedTuple):
    """Why there was no room for a request."""

    task_ids: tuple[bytes, ...]
    """All of the request."""
    first: bytes
    """The first of them for which there was none."""
    queue: str
    key: str
    """The concurrency key that is meant; empty: all of the queue."""
    waiting: int
    limit: int


@dataclass(eq=False)
class QueueFull(AsyncprocError):
    """As many tasks wait in a queue as may; of the requests that are named here nothing was enqueued."""

    full: tuple[Full, ...]
    index: int | None = None
    """Of the first task for which there was no room, in its request."""

    def __str__(self) -> str:
        full = self.full[0]
        where = f"queue {full.queue} with the key {full.key}" if full.key else f"queue {full.queue}"
        task = "" if self.index is None else f"tasks[{self.index}]: "
        return f"{task}{full.waiting} tasks wait in {where}, of {full.limit} that may: try again later"


@dataclass(eq=False)
class SettingsRefused(AsyncprocError):
    """What an operator asked to change cannot be; `kind` is `invalid`, `exists`, `missing`, `used`, `stale`, `full` or
    `busy`."""

    kind: str
    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass(eq=False)
class QueueUnavailable(AsyncprocError):
    """The QueueActor did not answer in time: the request was refused or its outcome is unknown."""

    cause: str

    def __str__(self) -> str:
        return f"the QueueActor does not answer ({self.cause}); retry with the same request"


@dataclass(eq=False)
class TasksRejected(AsyncprocError):
    """Postgres cannot keep a value of these tasks; the others of their request are enqueued."""

    causes: dict[bytes, str]

    def __str__(self) -> str:
        named = "; ".join(f"task {task_id.hex()}: {cause}" for task_id, cause in list(self.causes.items())[:10])
        return f"not enqueued, all others of the request are: {named}"


class SoftTimeLimitExceeded(AsyncprocError):
    """Raised in a running task whose soft time limit is over: it may put things in order, and should end."""

    def __str__(self) -> str:
        return "the soft time limit is over"


@dataclass(eq=False)
class KeyRefused(AsyncprocError):
    """The code of a task's type does not make a usable key of its payload."""

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field} of its type: {self.problem}"


@dataclass(eq=False)
class NoteRefused(AsyncprocError, ValueError):
    """Raised in a running task: what it wants to note of itself cannot be kept."""

    what: str
    problem: str

    def __str__(self) -> str:
        return f"{self.what} {self.problem}"


@dataclass(eq=False)
class ExtensionRefused(AsyncprocError):
    """An attempt asked for more time than it may have; its limits stay as they are."""

    asked_s: float
    extended_s: float
    most_s: float

    def __str__(self) -> str:
        return (
            f"ctx.extend by {self.asked_s:g} s: the limits of this attempt are put off by {self.extended_s:g} s"
            f" already, and may be by {self.most_s:g} s in all (queue.maxExtended)"
        )


@dataclass(eq=False)
class TimeLimitExceeded(AsyncprocError):
    """An attempt ran past its time limit."""

    timeout_s: float

    def __str__(self) -> str:
        return f"the attempt ran for longer than {self.timeout_s:g} s, its time limit; its process was ended"


@dataclass(eq=False)
class SetupFailed(AsyncprocError):
    """What the type of a task keeps in each process could not be made: no task of it can run there."""

    type_name: str
    cause: str

    def __str__(self) -> str:
        return f"setup() of {self.type_name} failed, and is tried again for the next task: {self.cause}"


@dataclass(eq=False)
class SetupTooLong(AsyncprocError):
    """`setup()` of a type did not come to an end."""

    limit_s: float

    def __str__(self) -> str:
        return f"setup() took longer than {self.limit_s:g} s (queue.setup); its process was ended"


@dataclass(eq=False)
class WorkerDied(AsyncprocError):
    """The process in which an attempt ran ended in the midst of it."""

    cause: str

    def __str__(self) -> str:
        return self.cause


@dataclass(eq=False)
class MemoryShort(AsyncprocError):
    """The memory of a node was about to end, and of what was suspected there this attempt took most."""

    taken: int

    def __str__(self) -> str:
        return (
            f"the memory of its node was about to end, of which it took {self.taken / 2**30:.1f} GiB; its process was"
            " ended. Ask for `memory` in the resources of its type, or for fewer at once"
        )


@dataclass(eq=False)
class CellUnavailable(AsyncprocError):
    """A task that may take its process down could not be given one of its own."""

    cause: str

    def __str__(self) -> str:
        return f"no child process: {self.cause}"


class TaskCancelled(AsyncprocError):
    """How the attempt of a task ends that was asked to and went on."""

    def __str__(self) -> str:
        return "it was cancelled and did not come to an end; its process was ended"


@dataclass(eq=False)
class NotCancellable(AsyncprocError):
    """The task has ended already."""

    task_id: str
    state: str

    def __str__(self) -> str:
        return f"task {self.task_id} is {self.state}: only tasks that have not ended can be cancelled"
