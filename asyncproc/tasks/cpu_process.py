"""A task that fails on purpose, to try out retries and dead letters."""

from pydantic import Field

from asyncproc.processable import Processable
from asyncproc.task_context import TaskContext


class FailsOnPurpose(Exception):
    """What `CPUProcess` always raises."""


class CPUProcess(Processable):
    process_type: str = Field(min_length=1, max_length=200)

    def process(self, ctx: TaskContext) -> None:
        raise FailsOnPurpose(f"CPUProcess {self.process_type!r} fails on purpose (attempt {ctx.attempt})")
