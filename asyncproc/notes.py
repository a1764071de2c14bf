"""What a running task notes of itself, kept in its process until it is on record.

A task may note something in its innermost loop: what is newest replaces what was there, and nothing is sent from here.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from threading import Lock
from typing import Any, Final, TypeAlias

from pydantic_core import to_json

from asyncproc.clock import wall_now
from asyncproc.core.events import Lease, Note
from asyncproc.core.task import TaskId
from asyncproc.errors import NoteRefused

MAX_PROGRESS_NOTE: Final = 1_000
"""Characters."""
MAX_LINE: Final = 4_000
"""Characters of one line of the log; the rest of it is cut off."""
MAX_NUMBER: Final = 2**53
"""Every reader of JSON has these numbers exactly."""

NOTE_EVERY_S: Final = 1.0
"""What one task notes is sent no more often, but for the rest of it with its end."""

Progress: TypeAlias = tuple[float, float | None, str | None, float]
"""Done, total, note, instant."""
AttemptKey: TypeAlias = tuple[TaskId, int]


@dataclass(frozen=True, slots=True)
class NoteLimits:
    """How much is kept."""

    checkpoint_bytes: int = 64 * 1024
    log_lines: int = 100
    """Of one attempt, the newest."""
    log_bytes: int = 16 * 1024


class Notes:
    """Of one attempt. Its task writes from any thread; whoever sends takes, and confirms what is on record."""

    def __init__(self, key: AttemptKey, attempt: int, limits: NoteLimits, changed: "Callable[[Notes], None]") -> None:
        """`changed` is told when there is something to take that there was not before."""
        self.key = key
        self.send_at = 0.0
        """Not before this instant, by the monotonic clock. It belongs to whoever sends."""
        self._attempt = attempt
        self._limits = limits
        self._changed = changed
        self._lock = Lock()
        self._told = self.is_closed = False
        self._number = self._confirmed = 0
        self._progress: Progress | bytes | None = None
        self._checkpoint: bytes | None = None
        self._log: deque[bytes] = deque()
        self._log_bytes = 0
        # Numbers of the notes that are, or will be, the first to have what is newest of each.
        self._progress_in = self._checkpoint_in = self._log_in = 0

    @property
    def checkpoint(self) -> bytes | None:
        return self._checkpoint

    # ---- the task's side

    def set_progress(self, done: float, total: float | None, note: str | None) -> None:
        """Raises `NoteRefused`."""
        if note is not None and (not isinstance(note, str) or len(note) > MAX_PROGRESS_NOTE):
            raise NoteRefused("the note of a progress", f"must be text of at most {MAX_PROGRESS_NOTE} characters")
        progress = (_number("done", done), None if total is None else _number("total", total), note, wall_now())
        with self._lock:
            self._progress, self._progress_in = progress, self._number + 1
            tells = self._tells()
        if tells:
            self._changed(self)

    def set_checkpoint(self, value: Any) -> None:
        """Raises `NoteRefused`."""
        try:
            body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise NoteRefused("a checkpoint", f"must be a JSON value: {error}") from error
        if len(body) > self._limits.checkpoint_bytes:
            most = f"at most {self._limits.checkpoint_bytes} are kept (queue.maxCheckpointBytes)"
            raise NoteRefused(
                "a checkpoint", f"is {len(body)} bytes: {most}; keep the bulk elsewhere, and name it here"
            )
        with self._lock:
            self._checkpoint, self._checkpoint_in = body, self._number + 1
            tells = self._tells()
        if tells:
            self._changed(self)

    def add_line(self, message: str) -> None:
        text = message if len(message) <= MAX_LINE else message[: MAX_LINE - 1] + "…"
        text = text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
        line = to_json({"at": _instant(wall_now()), "attempt": self._attempt, "message": text})
        with self._lock:
            self._log.append(line)
            self._log_bytes += len(line)
            # The newest stays, whatever its size: it is bounded by itself.
            while len(self._log) > 1 and (
                len(self._log) > self._limits.log_lines or self._log_bytes > self._limits.log_bytes
            ):
                self._log_bytes -= len(self._log.popleft())
            self._log_in = self._number + 1
            tells = self._tells()
        if tells:
            self._changed(self)

    def adopt(self, note: Note) -> None:
        """What a process of the task's own has sent."""
        _, _, _, progress, checkpoint, log = note
        with self._lock:
            if progress is not None:
                self._progress, self._progress_in = progress, self._number + 1
            if checkpoint is not None:
                self._checkpoint, self._checkpoint_in = checkpoint, self._number + 1
            if log is not None:
                self._log, self._log_in = deque([log]), self._number + 1
            tells = self._tells()
        if tells:
            self._changed(self)

    def _tells(self) -> bool:
        tells = not (self._told or self.is_closed)
        self._told = True
        return tells

    # ---- the sender's side

    def take(self) -> Note | None:
        """What is not known to be on record; None where that is nothing."""
        with self._lock:
            self._told = False
            progress, checkpoint, log = (
                newest > self._confirmed for newest in (self._progress_in, self._checkpoint_in, self._log_in)
            )
            if not (progress or checkpoint or log):
                return None
            self._number += 1
            return (
                *self.key,
                self._number,
                _progress_json(self._progress) if progress else None,
                self._checkpoint if checkpoint else None,
                b",".join(self._log) if log else None,
            )

    def confirm(self, number: int) -> None:
        """The note of this number is on record."""
        with self._lock:
            self._confirmed = max(self._confirmed, number)

    def close(self) -> None:
        """Nobody sends any more: whatever the task's code goes on to note goes nowhere."""
        self.is_closed = True


class Notebook:
    """The notes of all attempts that run in this process and have noted something."""

    def __init__(self, limits: NoteLimits) -> None:
        self._limits = limits
        self.changed: Callable[[Notes], None] = _nobody
        """Called by the tasks' threads, at the first change since the last taking of the same notes."""
        self.open: dict[AttemptKey, Notes] = {}

    def of(self, lease: Lease) -> Notes:
        """Made at first."""
        key = (lease[0], lease[1])
        notes = self.open.get(key)
        if notes is None:
            # The attribute may change later.
            made = Notes(key, lease[2], self._limits, lambda changed: self.changed(changed))
            notes = self.open.setdefault(key, made)
        return notes

    def close(self, key: AttemptKey) -> None:
        """The attempt is over for whoever sends."""
        if (notes := self.open.pop(key, None)) is not None:
            notes.close()


def unsent() -> Notes:
    """For a context that no worker made, in a test of a task, say."""
    return Notes((b"", 0), 0, NoteLimits(), _nobody)


def _nobody(notes: Notes) -> None:
    pass


def _number(name: str, value: float) -> float:
    if type(value) is not int:
        if isinstance(value, bool | str | bytes):
            raise NoteRefused(name, f"must be a number, not {value!r:.100}")
        try:
            value = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise NoteRefused(name, f"must be a number: {error}") from error
        if not isfinite(value):
            raise NoteRefused(name, "must be a finite number")
    if not 0 <= value <= MAX_NUMBER:
        raise NoteRefused(name, f"is {value}: it must be between 0 and {MAX_NUMBER}")
    return value


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _progress_json(progress: Progress | bytes | None) -> bytes | None:
    if not isinstance(progress, tuple):
        return progress
    done, total, note, at = progress
    if note is not None:
        note = note.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return to_json({"done": done, "total": total, "note": note, "at": _instant(at)})
