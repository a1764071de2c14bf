"""Task types of the tests. A worker imports this file from the directory of the start, as it would a user's."""

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from asyncproc import Fail, Processable, Retry, Snooze, SoftTimeLimitExceeded, TaskContext, Unique, task
from asyncproc.clock import wall_now
from asyncproc.parents import Parents


def leave_trace(ledger: str, n: int, ctx: TaskContext) -> None:
    """One line, written at once: lines of many processes do not mix."""
    line = {"n": n, "attempt": ctx.attempt, "worker": ctx.worker, "pid": os.getpid()}
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, json.dumps(line).encode() + b"\n")
    os.close(descriptor)


@task(name="Note")
def note(ledger: str, n: int, ctx: TaskContext) -> int:
    leave_trace(ledger, n, ctx)
    return n


@task(name="NoteAsync")
async def note_async(ledger: str, n: int, ctx: TaskContext) -> int:
    await asyncio.sleep(0)
    leave_trace(ledger, n, ctx)
    return n


def _next_part(ctx: TaskContext, parts: int) -> int:
    part: int = (ctx.last_checkpoint or {"part": 0})["part"] + 1
    ctx.progress(part, parts, f"part {part}")
    ctx.log("part %d of %d", part, parts)
    ctx.checkpoint({"part": part})
    if part < parts:
        raise ValueError(f"there is more than part {part}")
    return part


@task(name="Resume", retry=5)
def resume(parts: int, ctx: TaskContext) -> int:
    """One part an attempt."""
    return _next_part(ctx, parts)


@task(name="ResumeAsync", retry=5)
async def resume_async(parts: int, ctx: TaskContext) -> int:
    await asyncio.sleep(0)
    return _next_part(ctx, parts)


@task(name="Tell", retry=0)
def tell(gate: str, ctx: TaskContext) -> None:
    ctx.progress(1, 2, "half of it")
    ctx.log("waits for %s", "the gate")
    while not Path(gate).exists():
        time.sleep(0.005)
    ctx.progress(2, 2)
    ctx.checkpoint([2])


@task(name="Work")
def work(ledger: str, n: int, seconds: float, ctx: TaskContext) -> None:
    leave_trace(ledger, n, ctx)
    time.sleep(seconds)


@task(name="Hold")
def hold(ledger: str, n: int, gate: str, ctx: TaskContext) -> None:
    """Run until the gate is there."""
    leave_trace(ledger, n, ctx)
    while not Path(gate).exists():
        time.sleep(0.005)


@task(name="Extend")
def extend(by: list[float], seconds: float, ctx: TaskContext) -> str:
    """Ask for more time, some at a time, and take as long as that."""
    for by_s in by:
        ctx.extend(by_s)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return "done"


@task(name="ExtendAsync")
async def extend_async(by: list[float], seconds: float, ctx: TaskContext) -> str:
    for by_s in by:
        ctx.extend(timedelta(seconds=by_s))
    await asyncio.sleep(seconds)
    return "done"


@task(name="HoldAsync")
async def hold_async(ledger: str, n: int, gate: str, ctx: TaskContext) -> None:
    leave_trace(ledger, n, ctx)
    while not await asyncio.to_thread(Path(gate).exists):  # noqa: ASYNC110 - another process makes the file
        await asyncio.sleep(0.005)


@task(name="Die", retry=0)
def die(ledger: str, n: int, ctx: TaskContext, how: str = "killed") -> None:
    """Take the whole worker along."""
    leave_trace(ledger, n, ctx)
    match how:
        case "exits":
            os._exit(0)
        case "aborts":
            os.abort()
        case "segfaults":
            ctypes.string_at(0)
        case "hoards":
            hoard = b"x" * (400 << 20)
            signal.pause()
            del hoard
        case _:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()


@task(name="Hang", retry=0, timeout=0.5)
def hang(ledger: str, n: int, how: str, ctx: TaskContext) -> None:
    leave_trace(ledger, n, ctx)
    match how:
        case "sleeps":
            time.sleep(3600)
        case "spins":
            while True:
                pass
        case "keeps the interpreter":
            re.match("(a+)+$", "a" * 64 + "b")
        case _:
            while True:
                with contextlib.suppress(BaseException):
                    time.sleep(3600)


@task(name="HangAsync", retry=0, timeout=0.5)
async def hang_async(ledger: str, n: int, ctx: TaskContext) -> None:
    leave_trace(ledger, n, ctx)
    await asyncio.sleep(3600)


@task(name="TidyUp", retry=0, soft_timeout=0.2)
def tidy_up(seconds: float) -> str:
    """Goes on until it is told to end, and then ends in good order."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "tidied up"
    return "done"


@task(name="Heedless", retry=0, soft_timeout=0.2)
def heedless(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
    return "done"


@task(name="TidyUpAsync", retry=0, soft_timeout=timedelta(milliseconds=200))
async def tidy_up_async(heeds: bool) -> str:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        if heeds:
            return "tidied up"
        raise
    return "done"


class Unpicklable(Exception):
    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number
        self.lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("this error stays where it is")


class Lying(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its text can be had")

    __repr__ = __str__


def _raise(how: str) -> NoReturn:
    match how:
        case "plain":
            raise ValueError("it broke")
        case "unpicklable":
            raise Unpicklable("it cannot be pickled", 7)
        case "lying":
            raise Lying
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "huge":
            raise ValueError("x" * 3_000_000)
        case "unstorable":
            raise ValueError("a NUL \x00 and half a pair \ud800")
        case _:
            _raise_deeply()


def _raise_deeply() -> NoReturn:
    _raise_deeply()


@task(name="Explode", retry=0)
def explode(how: str) -> None:
    _raise(how)


@task(name="ExplodeAsync", retry=0)
async def explode_async(how: str) -> None:
    await asyncio.sleep(0)
    _raise(how)


class Endless(dict[str, object]):
    """A JSON object that holds itself."""


@task(name="Answer", retry=0)
def answer(how: str) -> Any:
    match how:
        case "object":
            return object()
        case "generator":
            return (n for n in range(3))
        case "large":
            return "x" * 2_000_000
        case "circle":
            circle = Endless()
            circle["self"] = circle
            return circle
        case "surrogate":
            return "half a pair \ud800"
        case "nan":
            return {"nan": float("nan"), "inf": float("inf")}
        case _:
            return {"nul": "a\x00b", "set": {1}}


class Parent(Processable):
    """Enqueues a child and then succeeds or fails, as it is told."""

    ledger: str
    n: int
    fails_until: int = 0

    def process(self, ctx: TaskContext) -> str:
        leave_trace(self.ledger, self.n, ctx)
        child = ctx.enqueue(note.__dict__["processable"](ledger=self.ledger, n=self.n + 1))
        if ctx.attempt <= self.fails_until:
            raise ValueError("the parent fails after it enqueued")
        return child


@task(name="Keyed", concurrency_key=lambda payload: payload.customer["name"], fairness_key="shared")
def keyed(customer: dict[str, Any]) -> None:
    pass


@task(name="SpawnKeyed", retry=0)
def spawn_keyed(names: list[Any], ctx: TaskContext) -> None:
    for name in names:
        ctx.enqueue(keyed.__dict__["processable"](customer={"name": name}))
    ctx.enqueue(keyed.__dict__["processable"](customer={}), concurrency_key="own", fairness_key="")


@task(name="Spawn", retry=0)
def spawn(numbers: list[int], ctx: TaskContext) -> None:
    """Children with all that can be said of them, but for their priority."""
    soon = datetime.fromtimestamp(wall_now(), UTC) + timedelta(hours=1)
    for number in numbers:
        ctx.enqueue(
            note.__dict__["processable"](ledger="nowhere", n=number),
            run_at=soon,
            start_by=soon + timedelta(hours=1),
            deadline=soon + timedelta(hours=2),
            timeout=1,
            soft_timeout=timedelta(milliseconds=500),
            back_off=2,
            concurrency_key=f"key {number}",
            fairness_key="ada",
            resources={"num_gpus": 0.5},
        )


@task(name="Misplace", retry=0)
def misplace(how: str, ctx: TaskContext) -> None:
    """Enqueue a child that nobody could keep."""
    size = {"large": 2_000_000, "heavy": 1_000_000}.get(how, 1)
    child = note.__dict__["processable"](ledger="x" * size, n=0)
    match how:
        case "priority":
            ctx.enqueue(child, priority=2**40)
        case "not a number":
            ctx.enqueue(child, priority="5")  # type: ignore[arg-type]  # what nothing stops at run time
        case "nul":
            ctx.enqueue(child, queue="a\x00b")
        case "surrogate":
            ctx.enqueue(child, queue="\ud800")
        case "delay":
            ctx.enqueue(child, delay=1e300)
        case "many":
            for _ in range(10_001):
                ctx.enqueue(child)
        case "large" | "heavy":
            for _ in range(17):
                ctx.enqueue(child)


@task(name="Heed", retry=3)
def heed(ledger: str, n: int, how: str, ctx: TaskContext) -> str:
    """Goes on until it is asked to end; then it does so, or not."""
    leave_trace(ledger, n, ctx)
    while not ctx.cancelled or how == "is deaf":
        time.sleep(0.005)
    if how == "succeeds":
        return "in time"
    raise ValueError("it was cancelled")


def _told(parents: Parents) -> dict[str, Any]:
    results = sum(parent.result for parent in parents.values() if isinstance(parent.result, int))
    states = {name: parents[name].state for name in ("a", "b") if name in parents}
    return {"sum": results, "parents": len(parents), "states": states}


@task(name="Spread")
def spread(ledger: str, ctx: TaskContext) -> str:
    """Enqueues a fan-out of two and the task that gathers them."""
    children = [ctx.enqueue(note.__dict__["processable"](ledger=ledger, n=n)) for n in (40, 2)]
    return ctx.enqueue(gather.__dict__["processable"](), depends_on=[*children, ctx.id], on_parent_failure="run")


@task(name="Gather")
def gather(ctx: TaskContext) -> dict[str, Any]:
    return _told(ctx.parents)


@task(name="GatherAsync")
async def gather_async(ctx: TaskContext) -> dict[str, Any]:
    return _told(await ctx.parents)


@task(name="Say", retry=1)
def say(ledger: str, n: int, how: str, ctx: TaskContext) -> str:
    """Says itself how it goes on, the first time."""
    leave_trace(ledger, n, ctx)
    if len(Path(ledger).read_text().splitlines()) > 1:
        return "done"
    match how:
        case "retry":
            raise Retry("not yet", after=0.05)
        case "snooze":
            raise Snooze(after=timedelta(milliseconds=50))
        case _:
            raise Fail("it will never work")


@task(name="NoteOnce", unique=Unique(fields=("n",), states=("unfinished", "succeeded")))
def note_once(ledger: str, n: int, ctx: TaskContext) -> int:
    leave_trace(ledger, n, ctx)
    return n


@task(name="Environment")
def environment(name: str) -> str:
    return os.environ.get(name, "")
