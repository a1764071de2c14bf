"""Background tasks on Ray, kept in Postgres. Everything not named here is internal."""

from asyncproc.errors import AsyncprocError, ExtensionRefused, SoftTimeLimitExceeded
from asyncproc.processable import Processable, TaskContext, task
from asyncproc.verdicts import Fail, Retry, Snooze

__all__ = [
    "AsyncprocError", "ExtensionRefused", "Fail", "Processable", "Retry", "Snooze", "SoftTimeLimitExceeded",
    "TaskContext", "task",
]  # fmt: skip
