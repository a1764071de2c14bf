"""Instants past which a task is not to begin any more, or is not to go on."""

from collections.abc import Sequence
from json import dumps
from typing import TYPE_CHECKING

from asyncproc.core.cancel import cancel_waiting
from asyncproc.core.decision import BulkReply
from asyncproc.core.states import DUE_LATER, State, Trigger, after
from asyncproc.core.task import Task, TimeLimits

if TYPE_CHECKING:
    from asyncproc.core.step import Core

_LEAST_S = 0.001


def is_over(task: Task, now: float) -> bool:
    """Whether a task that waits is not to begin any more."""
    start_by, deadline, *_ = task.terms
    return bool((start_by and not task.attempt and start_by <= now) or (deadline and deadline <= now))


def expire(core: "Core", task: Task) -> None:
    """End a task that waits, in memory or on disk alone, and is over."""
    deadline = task.terms.deadline
    if not deadline or deadline > core.now:
        cancel_waiting(core, task, "it expired: it had not begun by its startBy")
        return
    core.backlog.withdraw(task)
    core.altered.add(task.id)
    task.state = after(task.state, Trigger.EXPIRE)
    core.counters.failed += 1
    cause = "it waited until after its deadline"
    record = dumps({"type": "DeadlineExceeded", "message": cause, "traceback": ""}).encode()
    core.decision.writes.overdue.append((task.id, task.lease, f"DeadlineExceeded: {cause}", record))


def expire_those_that_are(core: "Core", ticket: int, read: Sequence[Task]) -> None:
    """Of tasks as they were read from the table. What runs has its time limit; what is stale is found again."""
    reply = BulkReply(ticket)
    for row in read:
        task = core.tasks.get(row.id, row)
        is_known = task.id in core.tasks or core.backlog.is_on_disk(task)
        if task.state in {State.QUEUED, State.BLOCKED, *DUE_LATER} and is_known and task.id not in core.altered:
            if is_over(task, core.now):
                expire(core, task)
                reply.done.append(task.id)
        else:
            reply.skipped += 1
    core.decision.replies.append(reply)


def limits_of(task: Task, now: float) -> TimeLimits:
    """Of an attempt that begins now: no longer than its deadline allows."""
    limits, deadline = task.options.limits, task.terms.deadline
    if not deadline:
        return limits
    left_s = max(_LEAST_S, deadline - now)
    return limits._replace(timeout_s=min(limits.timeout_s or left_s, left_s), last_s=left_s)
