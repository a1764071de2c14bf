"""The task types that are measured. Workers import this file from the directory of the start."""

import time
from pathlib import Path

from asyncproc import task


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
