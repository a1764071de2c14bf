"""Everything that waits in a queue is cancelled, a part of it with each event."""

from typing import TYPE_CHECKING

from asyncproc.core.decision import PurgeReply
from asyncproc.core.events import Purged
from asyncproc.core.states import State, Trigger, after

if TYPE_CHECKING:
    from asyncproc.core.step import Core


def purge(core: "Core", event: Purged) -> None:
    """What began meanwhile goes on. Of what is on disk alone the table compares the lease, which a start changes."""
    cancelled = core.decision.writes.cancelled
    before = len(cancelled)
    for task_id, lease in event.rows:
        task = core.tasks.get(task_id)
        if task is not None:
            if task.state is State.RUNNING or task.queue != event.queue:
                continue
            core.backlog.withdraw(task)
            task.state = after(task.state, Trigger.CANCEL)
            lease = task.lease
        cancelled.append((task_id, lease, event.reason))
    core.decision.replies.append(PurgeReply(event.ticket, len(cancelled) - before))
