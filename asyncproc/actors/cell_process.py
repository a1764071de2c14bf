"""The processes in which suspects run: one that forks, with the task modules imported, and its children.

A worker has threads and connections, and cannot fork: a process of its own that has neither does it, in milliseconds
where a new interpreter would take a second. No Ray is in here.
"""

import asyncio
import ctypes
import os
import pickle
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from struct import Struct
from threading import Lock, Timer
from typing import Any, Final, NoReturn

from asyncproc.actors.slots import Slots
from asyncproc.clock import monotonic
from asyncproc.config import Settings, SmtpSettings
from asyncproc.core.events import Outcome
from asyncproc.executor import Executor
from asyncproc.notes import NOTE_EVERY_S, NoteLimits, Notes
from asyncproc.parents import Chunk, ParentsReader, ParentsUnread
from asyncproc.registry import Registry, from_settings
from asyncproc.tasks.generate_report import Figures, FiguresReader, Row

FORKED: Final = Struct(">q")
"""A pid: of a child just forked, or to be killed."""
ENDED: Final = Struct(">qi")
"""A pid and its exit code, negative for a signal."""
_PR_SET_PDEATHSIG: Final = 1
_MESSAGE: Final = 64
_PIPE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Order:
    """What the forking process is told first, through its standard input."""

    settings: Settings
    start_dir: str
    worker: str


class _Parent:
    """A child's way to its worker: leases come in, outcomes go out, and figures are asked for in between."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = Lock()
        self._noting = Lock()
        self._asked: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        """What it waits for, by the kind of the question."""

    def send(self, kind: str, content: object) -> None:
        with self._sending:
            self._connection.send((kind, content))

    async def read(self) -> list[Row]:
        """For `Figures`: rows that only the worker can get."""
        rows: list[Row] = await self.ask("figures", None)
        return rows

    async def ask(self, kind: str, content: object) -> Any:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._asked[kind] = (loop, answer)
        self.send(kind, content)
        return await answer

    def noted(self, notes: Notes) -> None:
        """Its worker hears of it once a second at most."""
        timer = Timer(max(0.0, notes.send_at - monotonic()), self.send_notes, (notes,))
        timer.daemon = True
        timer.start()

    def send_notes(self, notes: Notes) -> None:
        with self._noting:
            # What is closed was sent: the end of the task must come last.
            note = None if notes.is_closed else notes.take()
            if note is not None:
                notes.send_at = monotonic() + NOTE_EVERY_S
                self.send("note", note)
                notes.confirm(note[2])

    def serve(self, slots: Slots) -> None:
        """Until the worker closes its end, or is gone."""
        while True:
            kind, content = self._connection.recv()
            if kind == "run":
                slots.put([content])
            elif kind == "stop":
                slots.stop((content, 0), None)
            elif (asked := self._asked.pop(kind, None)) is not None:
                asked[0].call_soon_threadsafe(_give, asked[1], content)


def _give(answer: "asyncio.Future[Any]", content: object) -> None:
    if not answer.done():
        answer.set_result(content)


class _Parents:
    """The same way, to the results of the tasks that this one depended on."""

    def __init__(self, parent: _Parent) -> None:
        self._parent = parent

    async def read(self, task_id: str, start: int) -> Chunk:
        """Raises `ParentsUnread`."""
        answer: Chunk | ParentsUnread = await self._parent.ask("parents", (task_id, start))
        if isinstance(answer, ParentsUnread):
            raise answer
        return answer


def make_executor(
    settings: Settings, registry: Registry, worker: str, figures: FiguresReader, parents: ParentsReader
) -> Executor:
    """The same in a worker and in its children."""
    services: dict[type, object] = {Figures: Figures(figures), ParentsReader: parents}
    if settings.smtp is not None:
        services[SmtpSettings] = settings.smtp
    api, queue = settings.api, settings.queue
    limits = NoteLimits(queue.max_checkpoint_bytes, queue.max_log_lines, queue.max_log_bytes)
    return Executor(
        registry, worker, queue.max_result_bytes, api.max_task_bytes, api.max_body_bytes, services, limits, queue.setup
    )


def _live(order: Order, registry: Registry, connection: Connection) -> NoReturn:
    """A child: one slot, until it is told to end."""
    parent = _Parent(connection)
    executor = make_executor(order.settings, registry, order.worker, parent, _Parents(parent))
    notebook = executor.notebook
    notebook.changed = parent.noted

    def ended(outcome: Outcome) -> None:
        if (notes := notebook.open.get((outcome[0], outcome[1]))) is not None:
            parent.send_notes(notes)
            notebook.close(notes.key)
        parent.send("ended", outcome)

    # Its worker holds it to its limits too, and must know when they begin.
    executor.preparation.tell = parent.send
    most_s = order.settings.queue.max_extended
    slots = Slots(executor, 1, ended, ended, None, most_s, lambda by_s: parent.send("extended", by_s))
    try:
        parent.serve(slots)
    except (EOFError, OSError):
        slots.tear_down(order.settings.queue.teardown)
        os._exit(0)
    os._exit(1)


class _Forker:
    """Forks when told, kills when told, and says how each child ended."""

    def __init__(self, control: socket.socket, order: Order, registry: Registry) -> None:
        self._control = control
        self._order = order
        self._registry = registry
        self._children: set[int] = set()

    def run(self) -> None:
        """Until the worker is gone."""
        ended, wake = os.pipe()
        for end in (ended, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == ended:
                    os.read(ended, _PIPE_BYTES)
                    self._reap()
                elif not self._obey(selector, (ended, wake)):
                    self._wait(selector)
                    return

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """Children that have nothing to do may put things in order; they die with this process."""
        until = monotonic() + self._order.settings.queue.teardown
        selector.unregister(self._control)
        while self._children and (left_s := until - monotonic()) > 0:
            selector.select(left_s)
            self._reap()

    def _obey(self, selector: selectors.BaseSelector, own: tuple[int, int]) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 1)
        if descriptors:
            self._fork(descriptors[0], selector, own)
        elif message:
            (pid,) = FORKED.unpack(message)
            if pid in self._children:
                # What it started too: it would go on with what was to be stopped.
                os.killpg(pid, signal.SIGKILL)
        return bool(message)

    def _fork(self, descriptor: int, selector: selectors.BaseSelector, own: tuple[int, int]) -> None:
        mine = os.getpid()
        pid = os.fork()
        if pid:
            with suppress(OSError):
                os.setpgid(pid, pid)  # here too: it may have to be killed before it gets to it
            os.close(descriptor)
            self._children.add(pid)
            self._control.send(FORKED.pack(pid))
            return
        try:
            os.setpgid(0, 0)
            _die_with(mine)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            selector.close()
            for end in own:
                os.close(end)
            self._control.close()
            _live(self._order, self._registry, Connection(descriptor))
        except BaseException as error:
            print(f"a child process failed to start: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._children.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            with suppress(OSError):
                self._control.send(ENDED.pack(pid, code))


def _die_with(parent: int) -> None:
    """Where the system offers it; elsewhere a child that runs goes on until its task ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def main() -> None:
    # Ctrl-C on a terminal is for the worker to act on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    order: Order = pickle.load(sys.stdin.buffer)
    registry = from_settings(order.settings, Path(order.start_dir))
    with suppress(ConnectionError):
        _Forker(control, order, registry).run()


if __name__ == "__main__":
    main()
