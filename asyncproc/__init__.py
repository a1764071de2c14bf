"""Background tasks on Ray, kept in Postgres. Everything not named here is internal."""

from asyncproc.errors import AsyncprocError, SoftTimeLimitExceeded
from asyncproc.parents import Parent, Parents
from asyncproc.processable import Processable, TaskContext, task
from asyncproc.verdicts import Fail, Retry, Snooze

__all__ = [
    "AsyncprocError", "Fail", "Parent", "Parents", "Processable", "Retry", "Snooze", "SoftTimeLimitExceeded",
    "TaskContext", "task",
]  # fmt: skip
