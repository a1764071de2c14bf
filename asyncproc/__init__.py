"""Background tasks on Ray, kept in Postgres. Everything not named here is internal."""

from asyncproc.errors import AsyncprocError, SoftTimeLimitExceeded
from asyncproc.processable import Batch, Processable, TaskContext, task
from asyncproc.verdicts import Fail, Retry, Snooze

__all__ = [
    "AsyncprocError", "Batch", "Fail", "Processable", "Retry", "Snooze", "SoftTimeLimitExceeded", "TaskContext", "task",
]  # fmt: skip
