"""What the core is told. An event is one message; what it carries per task is a tuple, cheap to pickle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from asyncproc.core.asked import NO_CHANGE, Action, Change
from asyncproc.core.batches import Batching
from asyncproc.core.crowd import Crowd, Place
from asyncproc.core.schedule import Position, Schedule, Tick
from asyncproc.core.steering import Rules
from asyncproc.core.task import KeyUsed, LaneKey, NewTask, Task, TaskId, TimeLimits

Lease: TypeAlias = (
    tuple[TaskId, int, int, str, str, bytes, float, TimeLimits, bool]
    | tuple[TaskId, int, int, str, str, bytes, float, TimeLimits, bool, bytes]
)
"""The grant of one attempt to one worker: id, lease number, attempt, type, queue, payload, rank, time limits, whether
it runs in a process of its own; where an earlier attempt left one, its checkpoint."""

FAILED: Final = 0
SUCCEEDED: Final = 1
KILLED: Final = 2
"""It failed, and its process had to end with it: by its own doing, or because nothing else stopped it."""
RETRY_LATER: Final = 3
"""It failed, and says itself when it is to be tried again."""
SNOOZED: Final = 4
"""It did not fail: it says when it is to run, as if it had not begun."""
FAILED_FOR_GOOD: Final = 5
"""It failed, and says that it would fail again."""

Outcome: TypeAlias = tuple[TaskId, int, int, bytes, str, float, float, list[NewTask]]
"""How an attempt ended: id, lease number, one of the above, body, error, seconds it ran, spread, child tasks.

The body is the result, or the error as an object with type, message and traceback; both are JSON and never parsed by
the QueueActor. `error` is the short form. `spread` in [-1, 1] is drawn by the worker for the jitter of a retry;
of a task that says when, it is the seconds until then.
"""


def outcome_bytes(outcome: Outcome) -> int:
    """What it carries of results, errors and payloads."""
    children = outcome[7]
    return len(outcome[3]) + (sum(len(child[1]) for child in children) if children else 0)


Note: TypeAlias = tuple[TaskId, int, int, bytes | None, bytes | None, bytes | None]
"""What an attempt noted of itself: id, lease number, number of the note, progress, checkpoint, log.

All are JSON and never parsed by the QueueActor; None is as it was. The log is the newest lines of this attempt, objects
with commas between them. A later note has all of an earlier one that was not known to be on record, or its successor.
"""


def note_bytes(note: Note) -> int:
    return sum(len(part) for part in note[3:] if part is not None)


@dataclass(slots=True)
class Loaded:
    """What the table held when the reign began: everything that runs, and the lanes that have rows, each with its
    queue; the levels of token buckets, each with its instant."""

    running: list[Task]
    lanes: list[tuple[str, LaneKey]]
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    owed: list[TaskId] | None = None
    """Parents that ended and have children all the same; None where no task waits for another."""
    positions: Mapping[str, Position] = field(default_factory=dict)
    """How far the schedules are."""
    waiting: Sequence[tuple[str, Tick]] = ()
    """Ticks that wait for the task before them, in their order, each with its schedule."""


@dataclass(slots=True)
class Enqueued:
    """`keys` are recorded with the tasks, or not at all. `requested`: there is a row that asks for each of them, which
    goes with the commit that makes the task."""

    ticket: int
    tasks: list[NewTask]
    keys: Sequence[KeyUsed] = ()
    requested: bool = False
    replaced: Sequence[tuple[Task, NewTask]] = ()
    """Tasks that wait, as read from the table, and what they are to be from now on, under their own ids. Where one of
    them is not as it was read, nothing of the event is done."""
    sizes: Sequence[int] = ()
    """Tasks of each of the requests that it is made of; empty: all are of one. A full queue refuses whole requests."""
    whole: bool = False
    """The requests lean on each other, or on what is replaced: where one is refused nothing of the event is done."""


@dataclass(slots=True)
class Occupied:
    """How full the places are that new tasks of this step come to, read after the last commit."""

    crowds: dict[Place, Crowd]


@dataclass(slots=True)
class Registered:
    """A worker introduces itself: at its start, and after any exchange whose fate it does not know.

    `held` is all it has not been told to be recorded: waiting, running or finished. What the core believes it holds and
    is not in there never arrived.
    """

    ticket: int
    worker: str
    pool: str
    concurrency: int
    held: list[tuple[TaskId, int]]
    types: tuple[str, ...] | None = None
    """The task types that its code knows; None where it does not say."""
    batching: Mapping[str, Batching] = field(default_factory=dict)
    """Types of which it takes several tasks in one call."""
    patient: bool = False
    """While it holds nothing it waits for the answer to a poll as long as it takes (`CoreSettings.longest_poll_s`)."""


@dataclass(slots=True)
class Polled:
    """A worker reports outcomes and asks for leases. `session` is the number its last registration was answered with:
    a call that was overtaken by a newer registration must not receive anything.

    `returned` are leases that were called back and that no slot had begun; none will. They are sent once: what is lost
    on the way is missing when the worker registers, as it does after any loss.
    """

    ticket: int
    worker: str
    session: int
    outcomes: list[Outcome]
    returned: list[tuple[TaskId, int]] = field(default_factory=list)
    leaving: bool = False
    """The worker takes nothing more, and its process ends soon: that is no crash, whatever it runs until then."""
    notes: Sequence[Note] = ()
    """What its tasks noted, those included that ended."""


@dataclass(slots=True)
class WorkerLost:
    """The worker's process is gone. `charged` is False when it was ended on purpose: nobody aboard is suspected."""

    worker: str
    cause: str
    charged: bool = True
    proof: int = 1
    """After so many deaths before this one, all of which it was aboard of, a task that was alone is held to have done
    it."""


@dataclass(slots=True)
class RetryAsked:
    """Somebody wants this failed task, as read from `task_done`, to run again."""

    ticket: int
    task: Task


@dataclass(slots=True)
class CancelAsked:
    """Somebody wants this task, as read from the table, to end. One that runs has `grace_s` seconds for it."""

    ticket: int
    task: Task
    reason: str
    grace_s: float


@dataclass(slots=True)
class OverdueFound:
    """Tasks that wait in the table past an instant of theirs. Answered by a `BulkReply`."""

    ticket: int
    tasks: Sequence[Task]


@dataclass(slots=True)
class ChangeAsked:
    """Somebody wants this task, as read from the table, to wait otherwise."""

    ticket: int
    task: Task
    change: Change


@dataclass(slots=True)
class BulkAsked:
    """A batch of the tasks that match a filter, as read from the table. `reason` is for those that are cancelled."""

    ticket: int
    action: Action
    tasks: Sequence[Task]
    change: Change = NO_CHANGE
    reason: str = ""


@dataclass(slots=True)
class Page:
    """The next rows of a queue in rank order, or, where `queue` is None, the next ones to come due; read after the
    commit of the step that asked for them."""

    queue: str | None
    lane: LaneKey
    tasks: list[Task]
    last: tuple[float, TaskId] | None
    """The key up to which the page is complete."""
    complete: bool
    """Nothing that follows is on disk alone."""


@dataclass(slots=True)
class Released:
    """Blocked tasks that the last commit made scheduled ones, as far as they were read."""

    tasks: list[Task]
    since: float | None = None
    """Not all of them were read: from this instant on the table has some that memory does not know."""
    owed: list[TaskId] = field(default_factory=list)
    """Parents whose children were too many for one commit."""


@dataclass(slots=True)
class Refused:
    """Ids whose write found another state in the table than the core believed: the table is right."""

    ids: list[TaskId]


@dataclass(slots=True)
class RulesChanged:
    """The whole of the rules that are in force from now on."""

    ticket: int
    rules: Rules


@dataclass(slots=True)
class SchedulesChanged:
    """Schedules that are so from now on; None for those that are no more."""

    ticket: int
    schedules: Mapping[str, Schedule | None]
    is_all: bool = False
    """There are no others."""


@dataclass(slots=True)
class TicksAsked:
    """Somebody wants tasks of a schedule out of turn."""

    ticket: int
    name: str
    ticks: Sequence[Tick]


@dataclass(slots=True)
class QueueReranked:
    """The ranks of a queue were computed anew in the table."""

    queue: str
    lanes: list[LaneKey] = field(default_factory=list)
    """Those that have rows: while the ranks were mixed, memory may have taken one for empty."""


@dataclass(slots=True)
class Purged:
    """These tasks waited in the queue when the table was read; they are to be cancelled."""

    ticket: int
    queue: str
    rows: list[tuple[TaskId, int]]
    """Id and lease."""
    reason: str


@dataclass(slots=True)
class Draining:
    """No further leases: the system is about to stop."""


Steering: TypeAlias = (
    RetryAsked | CancelAsked | OverdueFound | ChangeAsked | BulkAsked | RulesChanged | QueueReranked | Purged | Draining
)
Event: TypeAlias = (
    Loaded
    | Enqueued
    | Registered
    | Polled
    | WorkerLost
    | Page
    | Released
    | Occupied
    | Refused
    | SchedulesChanged
    | TicksAsked
    | Steering
)
