"""The task types of a chaos run, which workers import by the name of this module."""

import os
import time
from pathlib import Path
from typing import Final

from asyncproc import TaskContext, task
from chaos.ledger import Pen

_pens: Final[dict[str, Pen]] = {}


class PlannedFailure(Exception):
    """The task was told to fail."""


def _run(ledger: str, n: int, ms: float, fails: int, ctx: TaskContext) -> int:
    pen = _pens.get(ledger)
    if pen is None:
        pen = _pens[ledger] = Pen(Path(ledger))
    pen.write("start", ctx.id, n, ctx.attempt, os.getpid(), ctx.worker, time.time_ns() / 1e9)
    time.sleep(ms / 1000)
    well = ctx.attempt > fails
    pen.write("end", ctx.id, n, ctx.attempt, os.getpid(), well)
    if not well:
        raise PlannedFailure(f"attempt {ctx.attempt} of {n}")
    return n


@task(name="Chore")
def chore(ledger: str, n: int, ms: float, fails: int, ctx: TaskContext) -> int:
    """Sleep, fail so many times first, return the number."""
    return _run(ledger, n, ms, fails, ctx)


@task(name="Doomed", retry=1)
def doomed(ledger: str, n: int, ms: float, fails: int, ctx: TaskContext) -> int:
    """The same with two attempts, so that it can fail for good."""
    return _run(ledger, n, ms, fails, ctx)


@task(name="Tick")
def tick(at: str) -> str:
    """What a schedule makes: it says for which instant."""
    return at
