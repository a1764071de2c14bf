"""The note that a running system leaves in its directory: who it is and where it listens."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

HOME: Final = ".asyncproc"
_FILE: Final = "up.json"


@dataclass(frozen=True, slots=True)
class Note:
    pid: int
    since: float
    """When the process began: a number that was given to another process since proves nothing."""
    url: str


def read(start_dir: Path) -> Note | None:
    """None where nothing runs; a note that a dead process left behind counts for nothing."""
    try:
        note = Note(**json.loads((start_dir / HOME / _FILE).read_text()))
        running = psutil.Process(note.pid).create_time() == note.since
    except (FileNotFoundError, ValueError, TypeError, psutil.NoSuchProcess):
        return None
    return note if running else None


def write(start_dir: Path, url: str) -> None:
    process = psutil.Process()
    text = json.dumps({"pid": process.pid, "since": process.create_time(), "url": url})
    (start_dir / HOME / _FILE).write_text(text)


def erase(start_dir: Path) -> None:
    (start_dir / HOME / _FILE).unlink(missing_ok=True)
