"""The task types that are measured. Workers import this file from the directory of the start."""

import os
import signal
import time
from pathlib import Path

from asyncproc import Batch, Processable, TaskContext, task

CALL_S = 0.02
"""What a call of the model costs, whatever it is given."""


@task(name="NoOp")
def no_op(text: str = "") -> None: ...


@task(name="Hold")
def hold(gate: str) -> None:
    """Occupy a worker until the gate is there."""
    while not Path(gate).exists():
        time.sleep(0.001)


@task(name="Stamp")
def stamp() -> float:
    """When it began, on the clock that all processes of a machine share."""
    return time.monotonic()


@task(name="Burn")
def burn(cpu_s: float) -> None:
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        pass


@task(name="Nap")
def nap(seconds: float) -> None:
    time.sleep(seconds)


class Infer(Processable):
    n: int

    def process(self, ctx: TaskContext) -> int:
        time.sleep(CALL_S)
        return self.n


class InferTogether(Processable, batch=Batch(size=32)):
    n: int

    @classmethod
    def process_batch(cls, tasks: list["InferTogether"], ctxs: list[TaskContext]) -> list[int]:
        time.sleep(CALL_S)
        return [task.n for task in tasks]


@task(name="Pill", retry=3)
def pill() -> None:
    """Whoever runs it dies."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


@task(name="Hang", retry=0, timeout=1.0)
def hang() -> None:
    while True:
        time.sleep(60)
