"""asyncproc as the task processor of Ray Serve's `@task_consumer` deployments."""

from asyncproc.handlers import current_task
from asyncproc.serve.adapter import AsyncprocAdapter, AsyncprocAdapterConfig, TaskNotFound

__all__ = ["AsyncprocAdapter", "AsyncprocAdapterConfig", "TaskNotFound", "current_task"]
