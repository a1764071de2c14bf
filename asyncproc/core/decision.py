"""What the core answers: rows to write, calls to answer after the commit, pages to read, an instant to be woken at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from asyncproc.core.events import Lease, Note
from asyncproc.core.schedule import Kind
from asyncproc.core.schedule import Outcome as TickOutcome
from asyncproc.core.states import State
from asyncproc.core.task import KeyUsed, LaneKey, NewTask, Task, TaskId
from asyncproc.errors import Full

Key: TypeAlias = tuple[float, TaskId]
"""A place in an order: rank (or `ready_at`), then id."""


Changed: TypeAlias = tuple[TaskId, int, State, int, str, float, State, int, str, float, float | None]
"""id, lease; state, priority, queue, ready_at as they are in the table; the same as they are to be; the new rank."""

Replaced: TypeAlias = tuple[TaskId, int, State, int, str, float, State, float, float | None, NewTask]
"""id, lease; state, priority, queue, ready_at as they are in the table; state, ready_at and rank as they are to be, and
the task whose content it has then."""


Depends: TypeAlias = tuple[TaskId, tuple[TaskId, ...], str, bytes, float]
"""Child, parents, what becomes of it where one fails, names of parents (`Parents.refs`), the instant before which it is
not to run."""


@dataclass(slots=True)
class Writes:
    """The changes of one cycle as columns-to-be. They are applied in the order of these fields, in one transaction.

    Every one but `inserts` compares lease and state in the table, so a replay after an unknown commit changes nothing.
    """

    notes: list[Note] = field(default_factory=list)
    """One a task at most. Before all others: what an attempt noted outlives it."""
    succeeded: list[tuple[TaskId, int, bytes]] = field(default_factory=list)
    """id, lease, result."""
    failed: list[tuple[TaskId, int, str, bytes]] = field(default_factory=list)
    """id, lease, error, error record."""
    retried: list[tuple[TaskId, int, float, int, str, bytes]] = field(default_factory=list)
    """id, lease, ready_at, losses, error, error record."""
    requeued: list[tuple[TaskId, int, int]] = field(default_factory=list)
    """id, lease, losses. The attempt is given back."""
    overdue: list[tuple[TaskId, int, str, bytes]] = field(default_factory=list)
    """id, lease, error, error record: it waited, and fails without another attempt."""
    snoozed: list[tuple[TaskId, int, float]] = field(default_factory=list)
    """id, lease, ready_at. The attempt is given back."""
    stopping: list[tuple[TaskId, int, str]] = field(default_factory=list)
    """id, lease, reason: it runs, and is asked to end."""
    cancelled: list[tuple[TaskId, int, str]] = field(default_factory=list)
    """id, lease, reason: ends the task in whatever state that is not final."""
    revived: list[tuple[TaskId, float, float]] = field(default_factory=list)
    """id, ready_at, rank: from `task_done` back to `task_live`."""
    changed: list[Changed] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    came_due: list[tuple[TaskId, float]] = field(default_factory=list)
    """id, rank."""
    keys: list[KeyUsed] = field(default_factory=list)
    """Idempotency keys of new rows. One that is in the table and not over yet is left as it is."""
    requests: list[tuple[TaskId]] = field(default_factory=list)
    """Rows by which new tasks were asked for: each goes with the commit that makes its task."""
    inserts: list[Task] = field(default_factory=list)
    """New rows, already running where a worker was waiting for them."""
    claims: list[tuple[TaskId, int, int, float, str]] = field(default_factory=list)
    """id, lease, attempt, rank, worker."""
    overflown: list[tuple[TaskId, int, str]] = field(default_factory=list)
    """id, lease, reason: new rows of this commit that end with it as cancelled."""

    levels: list[tuple[str, float, float]] = field(default_factory=list)
    """Token buckets from which something was taken: name, level, the instant of that level."""
    depends: list[Depends] = field(default_factory=list)
    """What the blocked ones of the new rows wait for."""
    parents: list[TaskId] = field(default_factory=list)
    """Tasks that may have ended, in this commit or before: children of those that have are released, or end too."""

    ticks: list[tuple[TaskId, str, float, Kind, TickOutcome, float]] = field(default_factory=list)
    """id of the task that was made, or would have been; schedule, instant, why it is one, what became of it, now."""
    positions: list[tuple[str, str, float, TaskId | None]] = field(default_factory=list)
    """How far schedules are: name, stamp, instant, last task."""
    positions_over: list[str] = field(default_factory=list)
    """Schedules that are no more. Goes before `positions`."""

    def __bool__(self) -> bool:
        return bool(
            self.inserts
            or self.claims
            or self.succeeded
            or self.failed
            or self.retried
            or self.requeued
            or self.overdue
            or self.snoozed
            or self.stopping
            or self.cancelled
            or self.changed
            or self.replaced
            or self.came_due
            or self.revived
            or self.keys
            or self.requests
            or self.levels
            or self.notes
            or self.parents
            or self.ticks
            or self.positions
            or self.positions_over
        )


@dataclass(slots=True)
class EnqueueReply:
    """The tasks are committed."""

    ticket: int
    replaced: Sequence[TaskId] = ()
    full: Sequence[Full] = ()
    """Requests that were refused, of those that the event was made of."""
    stale: bool = False
    """One that was to be replaced was not as it was read: read it again."""


@dataclass(slots=True)
class RegisterReply:
    ticket: int
    session: int
    dropped: list[TaskId]
    """Held leases that count no more: the worker forgets them, whatever comes of them."""


@dataclass(slots=True)
class PollReply:
    """The outcomes that came with the poll are recorded. `leases` is None where the worker must register first; then
    nothing of the poll was taken notice of.

    `recalled` are leases the worker is to return with its next poll, as far as it has not begun them.
    """

    ticket: int
    leases: list[Lease] | None
    recalled: list[tuple[TaskId, int]] = field(default_factory=list)
    stops: list[tuple[TaskId, int, float]] = field(default_factory=list)
    """Leases that are to come to an end, each with the seconds it has for that."""


@dataclass(slots=True)
class TicksReply:
    """`decided` ticks were asked for and are decided: all or none. None are where there is no such schedule, or where
    so many cannot wait in its line."""

    ticket: int
    decided: int
    is_full: bool = False


@dataclass(slots=True)
class RulesReply:
    """The rules, or schedules, are in force."""

    ticket: int


@dataclass(slots=True)
class PurgeReply:
    """`cancelled` tasks of the event are cancelled; the others were not waiting any more."""

    ticket: int
    cancelled: int


@dataclass(slots=True)
class RetryReply:
    """`refused` is the state that forbids the retry, None where it was granted."""

    ticket: int
    task_id: TaskId
    refused: State | None


@dataclass(slots=True)
class CancelReply:
    """`refused` is the final state that the task has already. `stale`: it was not as it was read; read it again."""

    ticket: int
    task_id: TaskId
    refused: State | None = None
    is_running: bool = False
    """It was asked to end, and is not cancelled yet."""
    stale: bool = False


@dataclass(slots=True)
class ChangeReply:
    """`refused` is the state that forbids the change. `stale`: the task was not as it was read; read it again."""

    ticket: int
    task_id: TaskId
    refused: State | None = None
    stale: bool = False


@dataclass(slots=True)
class BulkReply:
    ticket: int
    done: list[TaskId] = field(default_factory=list)
    skipped: int = 0
    """Tasks in a state that the action is not for."""
    stale: list[TaskId] = field(default_factory=list)
    """They were not as they were read."""


Reply: TypeAlias = (
    EnqueueReply
    | RegisterReply
    | PollReply
    | RetryReply
    | CancelReply
    | ChangeReply
    | BulkReply
    | RulesReply
    | PurgeReply
    | TicksReply
)


@dataclass(slots=True)
class PageWanted:
    """`queue` is None for the tasks that come due; they are ordered by `ready_at` instead of rank."""

    queue: str | None
    lane: LaneKey
    after: Key
    limit: int


@dataclass(slots=True)
class Decision:
    writes: Writes = field(default_factory=Writes)
    replies: list[Reply] = field(default_factory=list)
    pages: list[PageWanted] = field(default_factory=list)
    """To be read after the commit and before the next step: only then do memory and table agree on what is missing."""
    payloads: list[TaskId] = field(default_factory=list)
    """To be read after the commit and put into the leases that lack them."""
    checkpoints: list[TaskId] = field(default_factory=list)
    """To be read after the commit and added to the leases."""
    wake_at: float | None = None
