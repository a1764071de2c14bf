"""Background tasks on Ray, kept in Postgres. Everything not named here is internal."""

from asyncproc.errors import AsyncprocError, SoftTimeLimitExceeded
from asyncproc.processable import Processable, TaskContext, task
from asyncproc.unique import Unique
from asyncproc.verdicts import Fail, Retry, Snooze

__all__ = [
    "AsyncprocError", "Fail", "Processable", "Retry", "Snooze", "SoftTimeLimitExceeded", "TaskContext", "Unique",
    "task",
]  # fmt: skip
