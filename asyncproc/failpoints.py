"""Places where a test may make this process die, freeze, fail or wait. Inert unless the environment names them.

    ASYNCPROC_FAILPOINTS="queue.after_commit=kill:0.01;worker.after_effect=sleep:0.2:n5"

names `queue.after_commit`, where the process kills itself one time in a hundred, and `worker.after_effect`, where it
waits 0.2 s the fifth time. Actions are `kill` (SIGKILL), `stop` (SIGSTOP), `raise` and `sleep:SECONDS`; without a
chance (0 to 1) or the number of a hit (`n5`) they act every time. `ASYNCPROC_FAILPOINTS="@/some/file"` reads the same
text from a file, again whenever the file changes, and leaves a line in `/some/file.fired` for each time one acted.

`hit` is called once a cycle or an exchange; where every task passes, `armed` is looked at first.
"""

import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncproc.clock import spread
from asyncproc.errors import AsyncprocError

log = logging.getLogger(__name__)

VARIABLE: Final = "ASYNCPROC_FAILPOINTS"
NAMES: Final = frozenset(
    {
        "api.before_send",
        "api.after_commit",
        "queue.after_receive",
        "queue.after_decision",
        "queue.before_commit",
        "queue.after_commit",
        "queue.after_answer",
        "queue.before_epoch",
        "queue.after_epoch",
        "queue.mid_load",
        "queue.after_load",
        "queue.after_worker_start",
        "migrate.before",
        "migrate.mid",
        "migrate.after",
        "worker.before_register",
        "worker.after_register",
        "worker.before_send",
        "worker.after_receive",
        "worker.before_effect",
        "worker.after_effect",
        "worker.after_recorded",
    }
)
"""Who stands at the boundary, and which side of it."""
ACTIONS: Final = ("kill", "stop", "raise", "sleep")


@dataclass(eq=False)
class FailpointsInvalid(AsyncprocError):
    """The text that should name failpoints cannot be read."""

    reason: str

    def __str__(self) -> str:
        return f"{VARIABLE}: {self.reason}"


class FailpointHit(Exception):
    """What the action `raise` raises."""


@dataclass(slots=True)
class Failpoint:
    action: str
    seconds: float = 0.0
    chance: float = 1.0
    nth: int = 0
    """0 where the chance decides."""
    hits: int = 0

    def is_due(self) -> bool:
        self.hits += 1
        if self.nth:
            return self.hits == self.nth
        return (spread() + 1) / 2 < self.chance


def parse(text: str) -> dict[str, Failpoint]:
    """Raises `FailpointsInvalid` where a name, an action or a number is not one."""
    found: dict[str, Failpoint] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, rest = (piece.strip() for piece in part.partition("="))
        if name not in NAMES:
            raise FailpointsInvalid(f"there is no failpoint {name!r}; there are {', '.join(sorted(NAMES))}")
        found[name] = _failpoint(part, rest)
    return found


def _failpoint(part: str, text: str) -> Failpoint:
    action, *arguments = text.split(":")
    if action not in ACTIONS:
        raise FailpointsInvalid(f"{part!r} has no action; there are {', '.join(ACTIONS)}")
    failpoint = Failpoint(action)
    try:
        if action == "sleep":
            failpoint.seconds = float(arguments.pop(0))
        when = arguments.pop(0) if arguments else "1"
        if when.startswith("n"):
            failpoint.nth = int(when[1:])
        else:
            failpoint.chance = float(when)
    except (ValueError, IndexError):
        raise FailpointsInvalid(f"{part!r} lacks a number: try sleep:0.2, kill:0.01 or kill:n5") from None
    if arguments or not 0 <= failpoint.chance <= 1 or failpoint.nth < 0 or failpoint.seconds < 0 or when == "n0":
        raise FailpointsInvalid(f"{part!r}: a chance is from 0 to 1, a hit from n1 on, and nothing follows")
    return failpoint


class Failpoints:
    """What one process was told. A file is read again when it changes, so that a test arms a process that runs."""

    def __init__(self, text: str) -> None:
        self._file = Path(text[1:]) if text.startswith("@") else None
        self._seen: tuple[int, int] | None = None
        self._points = {} if self._file else parse(text)

    def hit(self, name: str) -> None:
        if self._file is not None:
            self._read(self._file)
        point = self._points.get(name)
        if point is not None and point.is_due():
            self._tell(name, point)
            _act(name, point)

    def _read(self, file: Path) -> None:
        try:
            found = file.stat()
        except FileNotFoundError:
            self._points, self._seen = {}, None
            return
        if (seen := (found.st_mtime_ns, found.st_ino)) != self._seen:
            self._points, self._seen = parse(file.read_text()), seen

    def _tell(self, name: str, point: Failpoint) -> None:
        log.warning("failpoint %s: %s", name, point.action)
        if self._file is not None:
            line = f"{name} {point.action} {os.getpid()} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n"
            record = os.open(f"{self._file}.fired", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(record, line.encode())
            os.close(record)


def _act(name: str, point: Failpoint) -> None:
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            # Blocks a loop as well: that is what a process does which has no CPU.
            time.sleep(point.seconds)
        case _:
            raise FailpointHit(name)


armed = False
_failpoints = Failpoints("")


def arm(environ: Mapping[str, str]) -> None:
    """Do as the environment says. Raises `FailpointsInvalid`."""
    global armed, _failpoints
    text = environ.get(VARIABLE, "").strip()
    _failpoints, armed = Failpoints(text), bool(text)
    if armed:
        log.warning("%s is set: this process fails on purpose (%s)", VARIABLE, text)


def hit(name: str) -> None:
    """This process is at the failpoint of this name."""
    if armed:
        _failpoints.hit(name)


arm(os.environ)
