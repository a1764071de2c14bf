"""A worker's side of its child processes: suspects run there, so that only the child dies with them.

The death of a child names its culprit, which the death of a worker that ran several tasks does not.
"""

import asyncio
import logging
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from threading import Condition, Lock, Thread
from time import sleep
from typing import Final

import psutil

from asyncproc.actors.cell_process import ENDED, FORKED, Order
from asyncproc.actors.memory import LOOK_S, MemoryLine
from asyncproc.actors.watchdog import extended
from asyncproc.clock import monotonic
from asyncproc.core.events import KILLED, Lease, Outcome
from asyncproc.core.task import NO_LIMITS, TaskId, TimeLimits
from asyncproc.errors import CellUnavailable, MemoryShort, SetupTooLong, TimeLimitExceeded, WorkerDied
from asyncproc.executor import as_killed, failed
from asyncproc.notes import Notebook
from asyncproc.parents import Chunk, ParentsReader, ParentsUnread
from asyncproc.tasks.generate_report import FiguresReader

log = logging.getLogger(__name__)

START_S: Final = 60.0
"""Until the task modules are imported and a child is forked, at most."""
OVERDUE_S: Final = 0.5
"""How long after the hard limit a child is waited for that should have noticed itself: it knows where it stood."""
STATUS_S: Final = 5.0
IDLE_S: Final = 30.0
"""After this long without work a child ends; so does the process that forks them after the last one."""
FIGURES_S: Final = 15.0
_MESSAGE: Final = 64
_START: Final = "import sys; sys.path[:] = sys.argv[2:]; from asyncproc.actors.cell_process import main; main()"
"""The same modules as here, wherever they were found and in the same order."""


@dataclass(slots=True, eq=False)
class _Cell:
    pid: int
    connection: Connection
    sending: Lock = field(default_factory=Lock)
    idle_since: float = field(default_factory=monotonic)
    began: float = 0.0
    """Since when the limits count."""
    limits: TimeLimits = NO_LIMITS
    extended_s: float = 0.0
    """By how much they were put off."""
    exceeds: Callable[[float], Exception] = TimeLimitExceeded
    took: int = 0
    """Bytes of memory, where it was ended for them."""
    is_spent: bool = False
    """Somebody ends its process, whatever its task comes to meanwhile: it gets no other."""

    def send(self, kind: str, content: object) -> None:
        with self.sending:
            self.connection.send((kind, content))

    def begin(self, limits: TimeLimits, exceeds: Callable[[float], Exception]) -> None:
        """What it does from now on may take so long."""
        self.began, self.limits, self.exceeds, self.extended_s = monotonic(), limits, exceeds, 0.0

    def takes(self) -> int:
        """Bytes of memory."""
        try:
            return psutil.Process(self.pid).memory_info().rss
        except psutil.Error:
            return 0

    def limit_s(self) -> float:
        return extended(self.limits, self.extended_s)

    def left_s(self) -> float | None:
        limit_s = self.limit_s()
        return max(0.0, self.began + limit_s + OVERDUE_S - monotonic()) if limit_s else None


class Cells:
    """Made at the first suspect, gone when there were none for a while. `run` is called by many slots at once."""

    def __init__(
        self,
        order: Order,
        figures: FiguresReader,
        parents: ParentsReader,
        loop: asyncio.AbstractEventLoop,
        notebook: Notebook,
    ) -> None:
        """`notebook` is told what its tasks note."""
        self._order = order
        self._notebook = notebook
        self._figures = figures
        self._parents = parents
        self._loop = loop
        self._changed = Condition()
        self._forker: _Forker | None = None
        self._idle: list[_Cell] = []
        self._busy = 0
        self._by_task: dict[TaskId, tuple[_Forker, _Cell]] = {}

    def run(self, lease: Lease) -> Outcome | None:
        """Run a task to its end in a child process, or to the child's. None where there is none to be had: the task
        has not begun."""
        try:
            forker, cell = self._take()
        except (OSError, CellUnavailable) as error:
            log.warning("a task that may take its process down runs in this one: %s", error)
            return None
        outcome: Outcome | None = None
        self._by_task[lease[0]] = (forker, cell)
        try:
            outcome = self._converse(cell, lease)
        except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ValueError) as error:
            log.info("the child process of a task is lost: %r", error)
        finally:
            with self._changed:
                del self._by_task[lease[0]]
        # Nobody marks it any more.
        if outcome is not None and outcome[2] != KILLED and not cell.is_spent:
            self._put_back(cell)
            return outcome
        forker.kill(cell.pid)
        code = forker.exit_code(cell.pid)
        cell.connection.close()
        with self._changed:
            self._busy -= 1
        return outcome or _why_it_died(cell, lease, code)

    def stop(self, task_id: TaskId) -> None:
        """Tell a task to end; nothing where it does not run here."""
        if (found := self._by_task.get(task_id)) is not None:
            with suppress(OSError):
                found[1].send("stop", task_id)

    def kill(self, task_id: TaskId, took: int = 0) -> None:
        """End the process of a task, because of so many bytes of memory or on request; nothing where it does not run
        here any more."""
        with self._changed:
            if (found := self._by_task.get(task_id)) is None:
                return
            found[1].is_spent, found[1].took = True, took
        found[0].kill(found[1].pid)

    def _converse(self, cell: _Cell, lease: Lease) -> Outcome | None:
        """None where the child does not end the task though its time is over."""
        cell.begin(lease[7], TimeLimitExceeded)
        cell.send("run", lease)
        while True:
            if not cell.connection.poll(cell.left_s()):
                return None
            kind, content = cell.connection.recv()
            if kind == "ended":
                outcome: Outcome = content
                return outcome
            if kind == "note":
                if content[:2] == lease[:2]:
                    self._notebook.of(lease).adopt(content)
                continue
            if kind == "extended":
                cell.extended_s += content
                continue
            if kind == "parents":
                cell.send("parents", self._read_parents(*content))
                continue
            if kind == "preparing":
                cell.begin(TimeLimits(content), SetupTooLong)
                continue
            if kind == "prepared":
                cell.begin(lease[7], TimeLimitExceeded)
                continue
            rows = asyncio.run_coroutine_threadsafe(self._figures.read(), self._loop).result(FIGURES_S)
            cell.send("figures", rows)

    def _read_parents(self, task_id: str, start: int) -> Chunk | ParentsUnread:
        try:
            return asyncio.run_coroutine_threadsafe(self._parents.read(task_id, start), self._loop).result()
        except ParentsUnread as error:
            return error

    # ---- children

    def _take(self) -> "tuple[_Forker, _Cell]":
        with self._changed:
            self._busy += 1
            try:
                while self._idle:
                    cell = self._idle.pop()
                    if self._forker is not None and not cell.connection.poll(0):
                        return self._forker, cell
                    cell.connection.close()  # it died while it was idle
                if self._forker is None or self._forker.over:
                    self._forker = _Forker(self._order)
                    for keep in (self._sweep, self._guard):
                        Thread(target=keep, args=(self._forker,), name="cells", daemon=True).start()
                return self._forker, self._forker.fork()
            except BaseException:
                self._busy -= 1
                raise

    def _put_back(self, cell: _Cell) -> None:
        cell.idle_since = monotonic()
        with self._changed:
            self._busy -= 1
            self._idle.append(cell)

    def _sweep(self, forker: "_Forker") -> None:
        """End children that have nothing to do, and the forking process once it has no child and no prospect."""
        while True:
            with self._changed:
                self._changed.wait(IDLE_S / 2)
                old = [cell for cell in self._idle if monotonic() - cell.idle_since >= IDLE_S]
                self._idle = [cell for cell in self._idle if cell not in old]
                for cell in old:
                    cell.connection.close()
                if forker.over or not (self._idle or self._busy):
                    if self._forker is forker:
                        self._forker = None
                    break
        forker.close()

    def _guard(self, forker: "_Forker") -> None:
        """While suspects run, end the one that takes most when memory ends: it goes by itself, and not with all that
        Ray ends then."""
        line = MemoryLine()
        while not forker.over:
            sleep(LOOK_S)
            if not (self._by_task and line.is_crossed()):
                continue
            running = [(task_id, cell) for task_id, (_, cell) in list(self._by_task.items())]
            if any(cell.is_spent for _, cell in running):
                continue  # what it took comes back first
            taken = {task_id: cell.takes() for task_id, cell in running}
            most = max(taken, key=taken.__getitem__, default=None)
            if most is not None and taken[most] > line.margin:
                self.kill(most, taken[most])


class _Forker:
    """The process that forks, as the worker sees it."""

    def __init__(self, order: Order) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True
            )
        self._control = ours
        self._teardown_s = order.settings.queue.teardown
        self._changed = Condition()
        self._forked: list[int] = []
        self._codes: dict[int, int] = {}
        self.over = False
        assert self._process.stdin is not None
        with self._process.stdin as stream:
            pickle.dump(order, stream)
        Thread(target=self._listen, name="cells-control", daemon=True).start()

    def fork(self) -> _Cell:
        """Raises `CellUnavailable`. Callers take turns."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        with self._changed:
            if not self._changed.wait_for(lambda: self._forked or self.over, START_S) or not self._forked:
                ours.close()
                raise CellUnavailable("a child process could not be forked: see the worker's log")
            pid = self._forked.pop()
        return _Cell(pid, Connection(ours.detach()))

    def kill(self, pid: int) -> None:
        try:
            self._control.send(FORKED.pack(pid))
        except OSError:
            log.warning("the process that forks is gone, and its children with it")

    def exit_code(self, pid: int) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: pid in self._codes or self.over, STATUS_S)
            return self._codes.pop(pid, None)

    def close(self) -> None:
        """It ends when it sees that nobody is there."""
        self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(STATUS_S + self._teardown_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()

    def _listen(self) -> None:
        try:
            while message := self._control.recv(_MESSAGE):
                with self._changed:
                    if len(message) == FORKED.size:
                        self._forked.append(*FORKED.unpack(message))
                    else:
                        pid, code = ENDED.unpack(message)
                        self._codes[pid] = code
                    self._changed.notify_all()
        except OSError as error:
            log.info("the process that forks is gone: %s", error)
        with self._changed:
            self.over = True
            self._changed.notify_all()


def _why_it_died(cell: _Cell, lease: Lease, code: int | None) -> Outcome:
    seconds, limit_s = monotonic() - cell.began, cell.limit_s()
    if cell.took:
        return as_killed(failed(lease, MemoryShort(cell.took), seconds, ""))
    if limit_s and seconds >= limit_s:
        return as_killed(failed(lease, cell.exceeds(limit_s), seconds, ""))
    return as_killed(failed(lease, WorkerDied(_words(code)), seconds, ""))


def _words(code: int | None) -> str:
    if code is None:
        return "its process was killed or crashed"
    if code >= 0:
        return f"its process was killed or crashed: it ended with exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"its process was killed or crashed: {known.get(-code, f'signal {-code}')}"
