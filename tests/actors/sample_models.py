"""Task types that keep something in their worker, and such as take several tasks in one call."""

import asyncio
import contextlib
import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from asyncproc import Batch, Fail, Processable, Retry, Snooze, SoftTimeLimitExceeded, TaskContext


def note_line(ledger: str, **line: object) -> None:
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, json.dumps({**line, "pid": os.getpid()}).encode() + b"\n")
    os.close(descriptor)


def lines(ledger: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(ledger).read_text().splitlines()] if Path(ledger).exists() else []


class Modelled(Processable, retry=0):
    """Its model takes a while to load; `MODEL_LEDGER` names the file that hears of it, and may say that it fails."""

    n: int
    seconds: float = 0.0
    model: ClassVar[str] = ""

    @classmethod
    def setup(cls) -> None:
        ledger = os.environ["MODEL_LEDGER"]
        note_line(ledger, event=f"setup {cls.task_options.name}")
        time.sleep(0.05)
        if Path(f"{ledger}.broken").exists():
            raise ValueError("no such model")
        if Path(f"{ledger}.hangs").exists():
            time.sleep(3600)
        cls.model = "loaded"

    @classmethod
    def teardown(cls) -> None:
        note_line(os.environ["MODEL_LEDGER"], event=f"teardown {cls.task_options.name}")
        if Path(f"{os.environ['MODEL_LEDGER']}.sticks").exists():
            time.sleep(3600)
        cls.model = ""

    def process(self, ctx: TaskContext) -> str:
        time.sleep(self.seconds)
        return f"{self.n} {self.model}"


class ModelledAsync(Modelled, retry=0):
    async def process(self, ctx: TaskContext) -> str:  # type: ignore[override]  # both are allowed
        await asyncio.sleep(self.seconds)
        return f"{self.n} {self.model}"


class ModelledLoop(ModelledAsync, retry=0):
    @classmethod
    async def setup(cls) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().setup()
        cls.model = f"loaded on {type(asyncio.get_running_loop()).__name__ and 'the loop'}"

    @classmethod
    async def teardown(cls) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().teardown()


class Remembering(Processable):
    """Tells of its end where its last task said."""

    ledger: str
    setups: ClassVar[int] = 0
    last: ClassVar[str] = ""

    @classmethod
    def setup(cls) -> None:
        cls.setups += 1

    @classmethod
    def teardown(cls) -> None:
        note_line(cls.last, event="teardown")

    def process(self, ctx: TaskContext) -> int:
        type(self).last = self.ledger
        return self.setups


class Embed(Processable, retry=1, batch=Batch(size=4)):
    """Each call leaves a line with what it was given."""

    ledger: str
    n: int
    how: str = ""
    gate: str = ""

    @classmethod
    def process_batch(cls, tasks: list["Embed"], ctxs: list[TaskContext]) -> object:
        note_line(tasks[0].ledger, call=[task.n for task in tasks], attempts=[ctx.attempt for ctx in ctxs])
        while tasks[0].gate and not Path(tasks[0].gate).exists():
            time.sleep(0.005)
        for task, ctx in zip(tasks, ctxs, strict=True):
            if task.how == "extends":
                ctx.extend(5.0)
                time.sleep(0.4)
            cls.disturb(task.how)
        if any(task.how == "short" for task in tasks):
            return [1]
        if any(task.how == "text" for task in tasks):
            return "results"
        return [cls.result(task, ctx) for task, ctx in zip(tasks, ctxs, strict=True)]

    @classmethod
    def disturb(cls, how: str) -> None:
        match how:
            case "all fail":
                raise ValueError("the model broke")
            case "all wait":
                raise Retry("not yet", after=0.05)
            case "hangs":
                time.sleep(3600)
            case "ends softly":
                with contextlib.suppress(SoftTimeLimitExceeded):
                    while True:
                        time.sleep(0.01)
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def result(task: "Embed", ctx: TaskContext) -> object:
        match task.how:
            case "fails":
                return ValueError("bad input")
            case "fails for good":
                return Fail("never")
            case "snoozes":
                return Snooze(after=0.05) if ctx.attempt == 1 and ctx.queue != "again" else task.n
            case "large":
                return "x" * 2_000_000
            case "heeds":
                return ctx.cancelled
            case "goes on":
                left = ctx.last_checkpoint
                ctx.checkpoint(task.n)
                return ValueError("the rest another time") if left is None else left
            case "gathers":
                return {"of": [parent.result for parent in ctx.parents.values()]}
            case "enqueues":
                return ctx.enqueue(Embed(ledger=task.ledger, n=task.n + 100), affinity_key="warm")
        return task.n


class EmbedAsync(Embed, retry=1, batch=Batch(size=4)):
    @classmethod
    async def process_batch(  # type: ignore[override]
        cls, tasks: list["Embed"], ctxs: list[TaskContext]
    ) -> object:
        if any(task.how == "ends softly" for task in tasks):
            note_line(tasks[0].ledger, call=[task.n for task in tasks], attempts=[ctx.attempt for ctx in ctxs])
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            return [task.n for task in tasks]
        await asyncio.sleep(0)
        return super().process_batch(tasks, ctxs)


class EmbedLater(Embed, retry=1, batch=Batch(size=4, wait=0.15)): ...


class EmbedLaterAsync(EmbedAsync, retry=1, batch=Batch(size=4, wait=timedelta(milliseconds=150))): ...
