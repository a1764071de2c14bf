"""The records that a task is made of, small enough for a window of hundreds of thousands."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import State

if TYPE_CHECKING:
    from asyncproc.core.gates import Draw

QUEUE_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}$"
MAX_TYPE_NAME: Final = 200
MAX_KEY: Final = 200
"""Characters of a concurrency key or a fairness key."""
MAX_DELAY_S: Final = 366 * 86_400.0
"""The longest wait that can be asked for: instants stay within what Postgres, Python and JSON can all write."""

TaskId: TypeAlias = bytes
"""The 16 bytes of a UUIDv7: they sort by time of creation, and cost a third of a `uuid.UUID`."""


class TimeLimits(NamedTuple):
    """How long one attempt may take, in seconds; 0 is without limit."""

    timeout_s: float = 0.0
    """The attempt fails then, and where nothing else ends it its process is killed."""
    soft_timeout_s: float = 0.0
    """The task is told then, and may put things in order before it ends."""
    last_s: float = 0.0
    """Of an attempt alone: when the deadline of its task is over, however much time it asks for."""


NO_LIMITS: Final = TimeLimits()
MAX_TIMEOUT_S: Final = 366 * 86_400.0


class Options(NamedTuple):
    """What tasks posted together mostly share. One object serves many tasks, in memory and on the wire, where pickle
    writes it once and then refers to it."""

    type: str
    queue: str
    priority: int
    retry: RetryPolicy
    created_by: str
    limits: TimeLimits = NO_LIMITS
    concurrency_key: str = ""
    """Of the tasks of a queue that share one, only so many run at once; empty: without."""
    fairness_key: str = ""
    """The keys of a queue take turns by their weights, whoever has more waiting."""
    origins: str = ""
    """Who said the values that a task may leave to others, a letter of `origin.Origin` each: priority, retries,
    back-off, timeout, soft timeout."""
    affinity_key: str = ""
    """It is best run where the last one with this key ran; empty: anywhere."""
    resources: str = ""
    """What it asks of its worker beyond a slot, as `shape.shape_text` has it; empty: nothing."""


LaneKey: TypeAlias = tuple[str, str, str, str]
"""Of the tasks of a queue, those that meet the same limits and the same workers: type, fairness key, concurrency key,
shape of resources."""


def lane_key(options: Options) -> LaneKey:
    return (options.type, options.fairness_key, options.concurrency_key, options.resources)


class OnParentFailure(StrEnum):
    """What becomes of a task when one that it depends on does not succeed."""

    FAIL = "fail"
    SKIP = "skip"
    """It is cancelled."""
    RUN = "run"
    """It runs all the same, and may look at how its parents ended."""


MAX_PARENTS: Final = 10_000
MAX_EDGES: Final = 20_000
"""Parents that all tasks of one request have together: what one commit carries."""
REF: Final = r"^[A-Za-z_][A-Za-z0-9_.-]{0,99}$"
"""The name of a task within its request."""


class Parents(NamedTuple):
    """The tasks that must have ended before a task begins."""

    ids: tuple[TaskId, ...]
    """Each once."""
    on_failure: OnParentFailure = OnParentFailure.FAIL
    refs: bytes = b""
    """The names under which their request had them: a JSON object of names to ids, hexadecimal without hyphens; empty
    where there are none."""


class Terms(NamedTuple):
    """What one task alone is subject to; most share `NO_TERMS`. Instants in seconds since 1970, 0 for none."""

    start_by: float = 0.0
    """Not started by then, it expires and is never run."""
    deadline: float = 0.0
    """Over by then, whatever attempts are left."""
    unique_key: str = ""
    run_at: float = 0.0
    """When it is ready, in place of a delay. Of a task on its way alone: then it is its `ready_at`."""
    parents: Parents | None = None
    """Of a task on its way alone: then they are in the table."""


NO_TERMS: Final = Terms()

NewTask: TypeAlias = tuple[TaskId, bytes, Options, float, Terms]
"""A task on its way to the QueueActor: id, payload (JSON as UTF-8), options, delay in seconds (0: none), terms.
A tuple, because a frozen dataclass costs twenty times as much to pickle."""

KeyUsed: TypeAlias = tuple[str, bytes, bytes, float, list[TaskId]]
"""An idempotency key that a commit uses up: key, hash of the request's body, its answer (JSON as UTF-8), seconds for
which it is kept, the tasks of the request. The tasks stand or fall together, and the key with them."""


@dataclass(slots=True, eq=False)
class Task:
    """A task in memory. `rank` means something only once it is ready."""

    id: TaskId
    payload: bytes
    options: Options
    state: State
    ready_at: float
    created_at: float
    rank: float = 0.0
    attempt: int = 0
    """Number of the attempt that runs or ran last; a lost one gives its number back."""
    lease: int = 0
    """Number of the last lease; it only grows, whatever resets the attempts."""
    losses: int = 0
    """Times its worker died since an attempt last ended. Above 0 the task is a suspect and runs alone."""
    worker: str = ""
    left_out: int = 0
    """Bytes of a payload too large to be held: it is read for each lease, and empty here but in the step that brought
    it."""
    started_at: float = 0.0
    terms: Terms = NO_TERMS
    stop_reason: str | None = None
    """Why it was asked to come to an end while it ran; None where it was not."""
    checkpoint_bytes: int = 0
    """Of what an attempt left for the next one; 0 where none did."""
    draws: "tuple[Draw, ...]" = field(default=(), repr=False)
    """The gates through which it was started."""

    @property
    def queue(self) -> str:
        return self.options.queue

    @property
    def shape(self) -> str:
        return self.options.resources
