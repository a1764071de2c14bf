"""A task as people see it, read from the table for the API."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final, NamedTuple

from asyncproc.core.asked import NO_CHANGE, Action, Change
from asyncproc.core.states import State
from asyncproc.core.task import TaskId


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One row; instants in seconds since 1970, JSON as bytes that nobody parses on the way."""

    id: TaskId
    type: str
    queue: str
    state: State
    priority: int
    attempt: int
    max_attempts: int
    created_at: float
    ready_at: float
    started_at: float | None
    created_by: str
    backoff_s: float
    timeout_s: float
    soft_timeout_s: float
    worker: str | None
    error: str | None
    concurrency_key: str
    fairness_key: str
    start_by: float | None
    deadline: float | None
    origins: str
    """Who said the values that a task may leave to others, as `Options.origins` has it."""
    depends_on: tuple[TaskId, ...]
    """The first of its parents."""
    depends_on_count: int
    on_parent_failure: str | None
    resources: str
    """What it asks of its worker, as `Options.resources` has it."""
    errors: bytes
    payload: bytes
    finished_at: float | None
    result: bytes | None
    unique_key: str | None = None
    progress: bytes | None = None
    log: bytes | None = None
    """Like `checkpoint` only where one task is read."""
    checkpoint: bytes | None = None
    affinity_key: str = ""


class Glimpse(NamedTuple):
    """What tells one moment of a task from another."""

    state: State
    attempt: int
    lease: int
    noted: int = 0
    """It grows with what its attempts note."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """What tasks are narrowed to: all that is asked for, and of several values any. None asks for nothing."""

    state: State | tuple[State, ...] | None = None
    type: str | tuple[str, ...] | None = None
    queue: str | tuple[str, ...] | None = None
    priority: int | tuple[int, ...] | None = None
    created_by: str | tuple[str, ...] | None = None
    created_after: float | None = None
    """From this instant on, in seconds since 1970."""
    created_before: float | None = None
    """Before this instant."""
    fingerprint: str | tuple[str, ...] | None = None
    """Of the error of a failed task."""
    concurrency_key: str | tuple[str, ...] | None = None
    fairness_key: str | tuple[str, ...] | None = None
    id: TaskId | tuple[TaskId, ...] | None = None
    payload: str | None = None
    """JSON that the payload is to contain."""

    def texts(self) -> Iterator[str]:
        for asked in (getattr(self, name.name) for name in fields(self)):
            yield from (text for text in (asked if isinstance(asked, tuple) else (asked,)) if isinstance(text, str))


NO_FILTER: Final = TaskFilter()


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to all tasks that match a filter."""

    id: bytes
    """16 bytes like a task's: the same order sent again is the same operation."""
    action: Action
    narrowed: TaskFilter
    change: Change = NO_CHANGE
    rate: float | None = None
    """Tasks a second; None is without limit."""


class OperationState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an order has come."""

    order: Order
    state: OperationState
    created_at: float
    finished_at: float | None
    matched: int
    """Tasks that matched, so far."""
    done: int
    skipped: int
    """Of those, the ones in a state that the action is not for, or that changed meanwhile."""


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Failed tasks with one fingerprint; instants in seconds since 1970."""

    fingerprint: str
    type: str
    error: str
    """Of the last one."""
    count: int
    first_at: float
    last_at: float
    example: TaskId
    """The last one."""
