"""What the core is told. An event is one message; what it carries per task is a tuple, cheap to pickle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from asyncproc.core.asked import NO_CHANGE, Action, Change
from asyncproc.core.batches import Batching
from asyncproc.core.steering import Rules
from asyncproc.core.task import KeyUsed, LaneKey, NewTask, Task, TaskId, TimeLimits

Lease: TypeAlias = tuple[TaskId, int, int, str, str, bytes, float, TimeLimits, bool]
"""The grant of one attempt to one worker: id, lease number, attempt, type, queue, payload, rank, time limits, whether
it runs in a process of its own."""

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


@dataclass(slots=True)
class Loaded:
    """What the table held when the reign began: everything that runs, and the lanes that have rows, each with its
    queue; the levels of token buckets, each with its instant."""

    running: list[Task]
    lanes: list[tuple[str, LaneKey]]
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(slots=True)
class Enqueued:
    """`keys` are recorded with the tasks, or not at all."""

    ticket: int
    tasks: list[NewTask]
    keys: Sequence[KeyUsed] = ()


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
    batching: Mapping[str, Batching] = field(default_factory=dict)
    """Types of which it takes several tasks in one call."""


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


@dataclass(slots=True)
class WorkerLost:
    """The worker's process is gone. `charged` is False when it was ended on purpose: nobody aboard is suspected."""

    worker: str
    cause: str
    charged: bool = True


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
class Refused:
    """Ids whose write found another state in the table than the core believed: the table is right."""

    ids: list[TaskId]


@dataclass(slots=True)
class RulesChanged:
    """The whole of the rules that are in force from now on."""

    ticket: int
    rules: Rules


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
Event: TypeAlias = Loaded | Enqueued | Registered | Polled | WorkerLost | Page | Refused | Steering
