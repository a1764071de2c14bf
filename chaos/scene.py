"""What a fault is given to work with, and how it is written down that it struck."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: a run can be repeated
from typing import Final

import psutil

from chaos.clients import Clients
from chaos.ledger import TASKS, Pen, read
from chaos.system import QUEUE, System, until

PATIENCE_S: Final = 60.0


class Unfit(Exception):
    """This machine does not let the fault be made; the text says why."""


@dataclass
class Scene:
    system: System
    clients: Clients
    folder: Path
    pen: Pen
    chance: Random
    brief: bool
    """Seconds where minutes would be better: for the tests."""
    may_double: int = 0
    """Tasks that were running on processes that were killed, and may run a second time for it."""
    fired: set[str] = field(default_factory=set)

    def struck(self, what: str, *, gap: bool = False) -> None:
        """`gap`: service is interrupted from now on."""
        self.fired.add(what)
        self.pen.write("strike", what, gap)

    def healed(self, what: str, *, gap: bool = False) -> None:
        """`gap`: service should go on from now on."""
        self.pen.write("healed", what, gap)

    def seconds(self, usual: float, brief: float) -> float:
        return brief if self.brief else usual

    # ---- processes

    def kill(self, process: psutil.Process, what: str, *, gap: bool = False) -> None:
        process.send_signal(signal.SIGKILL)
        self.struck(what, gap=gap)

    def kill_queue(self, what: str) -> None:
        self.kill(self.system.only(QUEUE), what, gap=True)

    def end_frozen_worker(self, pid: int) -> None:
        """SIGKILL for a worker that is stopped: what the table says it runs, and no more, may run a second time."""
        self.may_double += self.runs_on(pid)
        os.kill(pid, signal.SIGKILL)

    def runs_on(self, pid: int) -> int:
        """How many tasks the table has running on a process that is stopped."""
        worker = self._worker_of(pid)
        if worker is None:
            return 0
        count = "SELECT count(*) FROM asyncproc.task_live WHERE state = 'running' AND worker = %s"
        return int(self.system.query(count, worker)[0][0])

    def _worker_of(self, pid: int) -> str | None:
        """The name under which a process runs tasks; None where it has begun none."""
        # The last line may be half written: it is not of a process that is stopped.
        names = {record.fields[3]: record.fields[4] for record in read(self.folder / TASKS) if record.kind == "start"}
        return names.get(pid)

    # ---- failpoints

    def fire(self, name: str, action: str, *, queue_dies: bool = False, gap: bool = False) -> list[int]:
        """Arm a failpoint until it acts; returns the processes it acted in."""
        before = len(self._fired_lines())
        self.system.failpoints.write_text(f"{name}={action}")
        if queue_dies:
            self.kill_queue(f"{name}: QueueActor killed")
        try:
            until(lambda: len(self._fired_lines()) > before, PATIENCE_S, f"the failpoint {name}")
        finally:
            self.system.failpoints.unlink()
        self.struck(name, gap=gap)
        return [int(line.split()[2]) for line in self._fired_lines()[before:]]

    def _fired_lines(self) -> list[str]:
        file = Path(f"{self.system.failpoints}.fired")
        return file.read_text().splitlines() if file.exists() else []

    # ---- Postgres

    def quit_postgres(self, what: str) -> None:
        """What `pg_ctl -m immediate` does: no checkpoint, no goodbye."""
        pid = self.system.postgres.pid()
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
        self.struck(what)
        until(lambda: self.system.postgres.pid() is None, PATIENCE_S, "the end of Postgres")

    def start_postgres(self, what: str) -> None:
        """The gap is counted from here on: what Postgres needs to recover is in it."""
        self.healed(what, gap=True)
        self.system.postgres.start()


def wait(seconds: float) -> None:
    """How long a fault lasts, or the quiet between two."""
    time.sleep(seconds)
