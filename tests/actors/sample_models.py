"""Task types that keep something in their worker, and such as take several tasks in one call."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import ClassVar

from asyncproc import Processable, TaskContext


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
