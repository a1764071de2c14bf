"""A task as people see it, read from the table for the API."""

from dataclasses import dataclass

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
    origins: str
    """Who said the values that a task may leave to others, as `Options.origins` has it."""
    errors: bytes
    payload: bytes
    finished_at: float | None
    result: bytes | None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """What a list is narrowed to; None asks for nothing."""

    state: State | None = None
    type: str | None = None
    queue: str | None = None
    priority: int | None = None
    created_by: str | None = None
