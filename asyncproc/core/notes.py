"""What running tasks note of themselves: their progress, a log, a checkpoint for the next attempt."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from asyncproc.core.events import Note
from asyncproc.core.states import State
from asyncproc.core.workers import Worker

if TYPE_CHECKING:
    from asyncproc.core.step import Core


def take_notes(core: "Core", worker: Worker, notes: Iterable[Note]) -> None:
    """Call before the outcomes that came with them are taken: a note counts as long as its attempt runs."""
    for note in notes:
        task_id, lease, number, _, checkpoint, _ = note
        task = core.tasks.get(task_id)
        if task is None or task.lease != lease or task.state is not State.RUNNING or task.worker != worker.name:
            core.counters.stale_notes += 1
            continue
        before = core.noted.get(task_id)
        if before is not None and before[2] > number:
            continue  # it was overtaken on its way
        if checkpoint is not None:
            task.checkpoint_bytes = len(checkpoint)
        core.noted[task_id] = note
