"""What happened, written down by those it happened to. The system under test neither reads nor writes it.

Three pens, a file each: `clients` note what they asked and were answered, `tasks` that they began and ended, `faults`
what was done to the system. Time is `CLOCK_BOOTTIME`: one for all processes, and no step of the wall clock moves it.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any, Final
from zlib import crc32

CLIENTS: Final = "clients"
TASKS: Final = "tasks"
FAULTS: Final = "faults"


class LedgerTorn(Exception):
    """A line cannot be what was written: nothing may be concluded from such a ledger."""


@dataclass(frozen=True, slots=True)
class Record:
    kind: str
    at_ns: int
    fields: tuple[Any, ...]

    @property
    def at_s(self) -> float:
        return self.at_ns / 1e9


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Pen:
    """Appends records, each by one write: lines of many processes do not mix, and what is written survives SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, kind: str, *fields: object) -> int:
        """Returns the instant that the record bears."""
        now_ns = boot_ns()
        body = dumps([kind, now_ns, *fields], separators=(",", ":")).encode()
        os.write(self._descriptor, b"%08x %s\n" % (crc32(body), body))
        return now_ns

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> Iterator[Record]:
    """Raises `LedgerTorn`."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            code, _, body = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or f"{crc32(body):08x}".encode() != code:
                raise LedgerTorn(f"{path}, line {number}")
            kind, at_ns, *fields = loads(body)
            yield Record(kind, at_ns, tuple(fields))


class Tail:
    """Counts the tasks that ended well, as the ledger grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.ended = 0

    def look(self) -> int:
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offset += len(whole)
            self.ended += sum(b' ["end",' in line and line.endswith(b",true]") for line in whole.splitlines())
        return self.ended
