"""A task is cancelled: at once where it waits, on request where it runs.

One that runs ends as it likes, or with its process once its time for that is over. Unless it succeeds it is cancelled
then, whatever became of it: it is neither retried, nor requeued when it is handed back or its worker dies.
"""

from typing import TYPE_CHECKING, Final

from asyncproc.core.decision import CancelReply, PollReply
from asyncproc.core.events import CancelAsked
from asyncproc.core.states import FINAL, State, Trigger, after
from asyncproc.core.task import Task
from asyncproc.core.workers import Worker

if TYPE_CHECKING:
    from asyncproc.core.step import Core

GRACE_S: Final = 10.0
"""How long a running task has where nobody says, before its process is ended."""
MAX_GRACE_S: Final = 3600.0


def cancel_asked(core: "Core", event: CancelAsked) -> None:
    task = core.tasks.get(event.task.id, event.task)
    reply = CancelReply(event.ticket, task.id)
    core.decision.replies.append(reply)
    if task.state in FINAL:
        reply.refused = task.state
    elif task.state is State.RUNNING:
        if task.id in core.tasks:
            reply.is_running = True
            ask_to_stop(core, task, event.reason, event.grace_s)
        else:
            reply.stale = True  # it has ended since it was read
    elif task.id in core.altered or (task.id not in core.tasks and not core.backlog.is_on_disk(task)):
        reply.stale = True
    else:
        cancel_waiting(core, task, event.reason)


def cancel_waiting(core: "Core", task: Task, reason: str) -> None:
    core.backlog.withdraw(task)
    core.altered.add(task.id)
    end_cancelled(core, task, reason)


def end_cancelled(core: "Core", task: Task, reason: str) -> None:
    task.state = after(task.state, Trigger.CANCEL)
    core.tasks.pop(task.id, None)
    core.counters.cancelled += 1
    core.decision.writes.cancelled.append((task.id, task.lease, reason))


def remind(core: "Core", worker: Worker) -> None:
    """The worker registers anew: what it was asked may not have reached it."""
    for task_id in worker.held:
        task = core.tasks[task_id]
        if task.stop_reason is not None:
            core.stops.setdefault(worker.name, []).append((task_id, task.lease, GRACE_S))


def tell_workers(core: "Core") -> None:
    """Ask those that have a poll open; the others when they poll next."""
    for name in [name for name in core.stops if name not in core.workers or core.workers[name].polls]:
        stops = core.stops.pop(name)
        worker = core.workers.get(name)
        poll = None if worker is None else worker.take_poll()
        if worker is not None and poll is not None:
            core.decision.replies.append(PollReply(poll.ticket, [], stops=stops))
            core.backlog.pool(worker.pool).place(worker)


def ask_to_stop(core: "Core", task: Task, reason: str, grace_s: float) -> None:
    """Asked again it has the shorter time of both."""
    task.stop_reason = reason
    core.decision.writes.stopping.append((task.id, task.lease, reason))
    core.stops.setdefault(task.worker, []).append((task.id, task.lease, grace_s))
