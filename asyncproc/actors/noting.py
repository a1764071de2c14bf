"""When what tasks note is sent: at once at first, then once a second a task, and what is left with its end."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from asyncproc.clock import monotonic
from asyncproc.core.events import Note, note_bytes
from asyncproc.notes import NOTE_EVERY_S, AttemptKey, Notebook, Notes

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of what one exchange carries beside the notes of what ended; the rest goes with the next one."""


class Noting:
    """Belongs to the loop of a conversation; but for the tasks that note something it costs nothing."""

    def __init__(
        self, notebook: Notebook, loop: asyncio.AbstractEventLoop, is_held: Callable[[AttemptKey], bool],
        send: Callable[[], None],
    ) -> None:  # fmt: skip
        """`send` is called when there is something to take."""
        self._notebook = notebook
        self.open = notebook.open
        """Empty where no task notes anything."""
        self._loop = loop
        self._is_held = is_held
        self._send = send
        self._waiting: dict[AttemptKey, Notes] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        notebook.changed = self._changed

    def take(self) -> list[Note]:
        """What is due. Until it is confirmed it is taken again with whatever follows it."""
        taken: list[Note] = []
        size, now = 0, monotonic()
        for key, notes in list(self._waiting.items()) if self._waiting else ():
            if notes.send_at <= now and size < MAX_BYTES and (note := self._take(key, notes)) is not None:
                taken.append(note)
                size += note_bytes(note)
        self._set_timer()
        return taken

    def last_of(self, key: AttemptKey) -> Note | None:
        """What is left of an attempt that ended."""
        notes = self._notebook.open.get(key)
        return None if notes is None else self._take(key, notes)

    def confirmed(self, notes: Iterable[Note]) -> None:
        """They are on record, or count no more."""
        for task_id, lease, number, *_ in notes:
            if (found := self._notebook.open.get((task_id, lease))) is not None:
                found.confirm(number)

    def close(self, key: AttemptKey) -> None:
        """The lease is not held any more."""
        self._waiting.pop(key, None)
        self._notebook.close(key)

    def send_again(self) -> None:
        """An exchange was lost: nobody knows what of it is on record."""
        self._waiting.update(self._notebook.open)
        self._set_timer()

    def _take(self, key: AttemptKey, notes: Notes) -> Note | None:
        self._waiting.pop(key, None)
        notes.send_at = monotonic() + NOTE_EVERY_S
        return notes.take()

    def _changed(self, notes: Notes) -> None:
        self._loop.call_soon_threadsafe(self._wait, notes)

    def _wait(self, notes: Notes) -> None:
        if not self._is_held(notes.key):
            self._notebook.close(notes.key)  # noted after its end
            return
        self._waiting[notes.key] = notes
        self._set_timer()

    def _set_timer(self) -> None:
        if not self._waiting:
            return
        at = min(notes.send_at for notes in self._waiting.values())
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._send()
