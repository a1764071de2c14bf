"""Background tasks on Ray, kept in Postgres. Everything not named here is internal."""

from asyncproc.batch import Batch
from asyncproc.errors import AsyncprocError, ExtensionRefused, NoteRefused, SoftTimeLimitExceeded
from asyncproc.parents import Parent, Parents
from asyncproc.processable import Processable, task
from asyncproc.task_context import TaskContext
from asyncproc.transaction import enqueue, enqueue_async
from asyncproc.unique import Unique
from asyncproc.verdicts import Fail, Retry, Snooze

__all__ = [
    "AsyncprocError", "Batch", "ExtensionRefused", "Fail", "NoteRefused", "Parent", "Parents", "Processable", "Retry",
    "Snooze", "SoftTimeLimitExceeded", "TaskContext", "Unique", "enqueue", "enqueue_async", "task",
]  # fmt: skip
