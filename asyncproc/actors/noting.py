"""When what tasks note is sent: at first at once, then once a second for all of a worker; the rest with each end."""

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
        self._next_at = 0.0
        """For all at once: an exchange costs far more than a note in it."""
        notebook.changed = self._changed

    def take(self) -> list[Note]:
        """What is due. Until it is confirmed it is taken again with whatever follows it."""
        taken: list[Note] = []
        if not self._waiting or (now := monotonic()) < self._next_at:
            return taken
        self._next_at, size = now + NOTE_EVERY_S, 0
        while self._waiting and size < MAX_BYTES:
            notes = self._waiting.pop(next(iter(self._waiting)))
            if (note := notes.take()) is not None:
                taken.append(note)
                size += note_bytes(note)
        self._set_timer()
        return taken

    def last_of(self, key: AttemptKey) -> Note | None:
        """What is left of an attempt that ended."""
        notes = self._notebook.open.get(key)
        self._waiting.pop(key, None)
        return None if notes is None else notes.take()

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

    def _changed(self, notes: Notes) -> None:
        self._loop.call_soon_threadsafe(self._wait, notes)

    def _wait(self, notes: Notes) -> None:
        if not self._is_held(notes.key):
            self._notebook.close(notes.key)  # noted after its end
            return
        self._waiting[notes.key] = notes
        self._set_timer()

    def _set_timer(self) -> None:
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self._next_at - monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if monotonic() < self._next_at:
            self._set_timer()  # what waited was taken along, or the clocks differ by a hair
        elif self._waiting:
            self._send()
