"""A task that waits gets the content of another that has its unique key: all but its id, and the instant of its making.

It has all its attempts before it then, and keeps its lease number and the errors of what it was before.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asyncproc.core.asked import CHANGEABLE
from asyncproc.core.change import is_stale
from asyncproc.core.rank import micros_until, to_micros
from asyncproc.core.states import DUE_LATER, State, Trigger, after
from asyncproc.core.task import NO_TERMS, NewTask, Task, Terms

if TYPE_CHECKING:
    from asyncproc.core.step import Core


def replace(core: "Core", replaced: Sequence[tuple[Task, NewTask]]) -> bool:
    """All of them or none: whether they were as they were read."""
    pairs = [(core.tasks.get(read.id, read), new) for read, new in replaced]
    if any(task.state not in CHANGEABLE or is_stale(core, task) for task, _ in pairs):
        return False
    for task, new in pairs:
        _replace(core, task, new)
    return True


def due_at(new: NewTask, now: float) -> tuple[float, Terms]:
    """When a new task is ready, and its terms."""
    _, _, _, delay_s, terms = new
    since = micros_until(now)
    ready_at = to_micros(since + delay_s) if delay_s else since
    if terms.run_at:
        ready_at, terms = max(since, to_micros(terms.run_at)), terms._replace(run_at=0.0)
    return ready_at, NO_TERMS if terms == NO_TERMS else terms


def _replace(core: "Core", task: Task, new: NewTask) -> None:
    was = (task.state, task.options.priority, task.queue, task.ready_at)
    core.backlog.withdraw(task)
    core.altered.add(task.id)
    _, task.payload, task.options, _, _ = new
    task.ready_at, task.terms = due_at(new, core.now)
    task.attempt, task.losses, task.worker, task.left_out = 0, 0, "", 0
    if len(task.payload) > core.settings.large_bytes:
        core.leave_out(task)
    task.state = after(task.state, Trigger.REPLACE)
    if task.ready_at <= core.now:
        task.state = after(task.state, Trigger.COME_DUE)
    state = task.state
    if state in DUE_LATER:
        core.backlog.defer(task)
    else:
        core.backlog.make_ready(task)
    rank = task.rank if state is State.QUEUED else None
    core.decision.writes.replaced.append((task.id, task.lease, *was, state, task.ready_at, rank, new))
