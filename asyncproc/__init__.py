"""Background tasks on Ray, kept in Postgres. Everything not named here is internal."""

from asyncproc.errors import AsyncprocError, SoftTimeLimitExceeded
from asyncproc.processable import Processable, TaskContext, task

__all__ = ["AsyncprocError", "Processable", "SoftTimeLimitExceeded", "TaskContext", "task"]
