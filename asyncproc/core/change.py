"""Tasks that wait are given another priority, queue or instant, and bulk requests are carried out.

The shell reads the rows; where the core has a task in memory its own copy counts. A copy may be older than the table:
what is written compares all that it was reckoned from, and what the table refuses is `stale`, to be read again.
"""

from typing import TYPE_CHECKING

from asyncproc.core.asked import CHANGEABLE, CHANGES, Action, Change
from asyncproc.core.cancel import GRACE_S, ask_to_stop, cancel_waiting
from asyncproc.core.decision import BulkReply, ChangeReply, RetryReply
from asyncproc.core.events import BulkAsked, ChangeAsked, RetryAsked
from asyncproc.core.rank import micros_until, to_micros
from asyncproc.core.states import DUE_LATER, State, Trigger, after
from asyncproc.core.task import Options, Task

if TYPE_CHECKING:
    from asyncproc.core.step import Core


def retry_asked(core: "Core", event: RetryAsked) -> None:
    task = event.task
    known = core.tasks.get(task.id)
    state = task.state if known is None else known.state
    if state is not State.FAILED:
        core.decision.replies.append(RetryReply(event.ticket, task.id, state))
        return
    revive(core, task)
    core.decision.replies.append(RetryReply(event.ticket, task.id, None))


def change_asked(core: "Core", event: ChangeAsked) -> None:
    task = core.tasks.get(event.task.id, event.task)
    reply = ChangeReply(event.ticket, task.id)
    if task.state not in CHANGEABLE:
        reply.refused = task.state
    elif is_stale(core, task):
        reply.stale = True
    else:
        _change(core, task, event.change, {})
    core.decision.replies.append(reply)


def bulk_asked(core: "Core", event: BulkAsked) -> None:
    """What is in a state that the action is not for is skipped, and what is not as it was read is stale."""
    reply = BulkReply(event.ticket)
    options: dict[Options, Options] = {}
    for read in event.tasks:
        task = core.tasks.get(read.id, read)
        if is_stale(core, task) or not _is_as_read(task, read):
            reply.stale.append(task.id)
        elif _carry_out(core, task, event, options):
            reply.done.append(task.id)
        else:
            reply.skipped += 1
    core.decision.replies.append(reply)


def revive(core: "Core", task: Task) -> None:
    """Run a failed task again, with all its attempts before it."""
    task.state = after(State.FAILED, Trigger.RETRY)
    task.ready_at, task.attempt, task.losses = micros_until(core.now), 0, 0
    core.backlog.make_ready(task)
    core.decision.writes.revived.append((task.id, task.ready_at, task.rank))


def is_stale(core: "Core", task: Task) -> bool:
    """It went another way in this same step, or is read from disk though its place is in memory."""
    if task.id in core.altered:
        return True
    return task.id not in core.tasks and task.state in CHANGEABLE and not core.backlog.is_on_disk(task)


def _is_as_read(task: Task, read: Task) -> bool:
    """It may be something that the filter does not mean any more."""
    return task is read or (task.state, task.lease, _figures(task)) == (read.state, read.lease, _figures(read))


def _figures(task: Task) -> tuple[int, str, float]:
    return (task.options.priority, task.options.queue, task.ready_at)


def _carry_out(core: "Core", task: Task, event: BulkAsked, options: dict[Options, Options]) -> bool:
    action = event.action
    if action is Action.RETRY:
        if task.state is State.FAILED:
            core.altered.add(task.id)
            revive(core, task)
            return True
        return False
    if action is Action.CANCEL and task.state is State.RUNNING and task.id in core.tasks:
        ask_to_stop(core, task, event.reason, GRACE_S)
        return True
    if action is Action.CANCEL and task.state is State.BLOCKED:
        cancel_waiting(core, task, event.reason)
        return True
    if task.state not in CHANGEABLE:
        return False
    if action in CHANGES:
        _change(core, task, event.change, options)
    elif action is Action.CANCEL:
        cancel_waiting(core, task, event.reason)
    else:
        raise AssertionError(f"{action} is not for tasks that wait")
    return True


def _change(core: "Core", task: Task, change: Change, options: dict[Options, Options]) -> None:
    """Give the task its new figures and its new place. `options` are those that were changed before, to be shared."""
    was = (task.state, *_figures(task))
    state, ready_at = _due_at(task, change, core.now)
    changed = options.get(task.options)
    if changed is None:
        changed = options[task.options] = _changed(task.options, change)
    if was == (state, changed.priority, changed.queue, ready_at):
        return
    core.backlog.withdraw(task)
    task.options, task.state, task.ready_at = changed, state, ready_at
    core.altered.add(task.id)
    if state in DUE_LATER:
        core.backlog.defer(task)
    else:
        core.backlog.make_ready(task)
    core.decision.writes.changed.append((task.id, task.lease, *was, state, *_figures(task), _rank(task)))


def _changed(options: Options, change: Change) -> Options:
    return options._replace(
        priority=options.priority if change.priority is None else change.priority,
        queue=options.queue if change.queue is None else change.queue,
    )


def _due_at(task: Task, change: Change, now: float) -> tuple[State, float]:
    """State and instant from then on. One that is ready already keeps the wait it had where it is to run at once."""
    asked = change.ready_at if change.delay_s is None else micros_until(now) + change.delay_s
    if asked is None:
        return task.state, task.ready_at
    if asked > now:
        return after(task.state, Trigger.POSTPONE), to_micros(asked)
    if task.state is State.QUEUED:
        return task.state, task.ready_at
    return after(task.state, Trigger.COME_DUE), min(task.ready_at, micros_until(now))


def _rank(task: Task) -> float | None:
    return None if task.state in DUE_LATER else task.rank
