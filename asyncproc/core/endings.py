"""Attempts that end without success: tried again, put off, given up, or charged with the death of their worker."""

import json
from typing import TYPE_CHECKING

from asyncproc.core.cancel import end_cancelled
from asyncproc.core.events import FAILED_FOR_GOOD, KILLED, RETRY_LATER, SNOOZED
from asyncproc.core.rank import to_micros
from asyncproc.core.retry import retry_at
from asyncproc.core.states import Trigger, after
from asyncproc.core.task import Task

if TYPE_CHECKING:
    from asyncproc.core.step import Core


def unsuccessful(core: "Core", task: Task, ending: int, error: str, body: bytes, spread: float) -> None:
    """What its worker reports; `spread` is what it is in `events.Outcome`."""
    task.losses = 0
    if task.stop_reason is not None:
        end_cancelled(core, task, task.stop_reason)
        return
    if ending == KILLED:
        core.dangers.note(task.options.type, core.now)
    if ending == SNOOZED:
        _put_off(core, task, spread)
    elif ending == FAILED_FOR_GOOD:
        _give_up(core, task, error, body)
    else:
        _fail(core, task, error, body, spread, after_s=spread if ending == RETRY_LATER else None)


def died(core: "Core", task: Task, cause: str) -> None:
    """Its worker died and nobody else can have done it."""
    core.dangers.note(task.options.type, core.now)
    kind, cause = _cause_of_death(core, task, cause)
    record = json.dumps({"type": kind, "message": cause, "traceback": ""}).encode()
    _fail(core, task, f"{kind}: {cause}", record, spread=0.0)


def lost(core: "Core", task: Task) -> None:
    """Back to its old place: the lost attempt is not counted, and the wait it had counts on."""
    if task.stop_reason is not None:
        end_cancelled(core, task, task.stop_reason)
        return
    task.state = after(task.state, Trigger.LOSE)
    task.attempt -= 1
    task.worker = ""
    core.decision.writes.requeued.append((task.id, task.lease, task.losses))
    core.backlog.admit(task)


def _put_off(core: "Core", task: Task, after_s: float) -> None:
    task.state = after(task.state, Trigger.SNOOZE)
    task.attempt -= 1
    task.ready_at = to_micros(core.now + after_s)
    core.decision.writes.snoozed.append((task.id, task.lease, task.ready_at))
    core.backlog.defer(task)


def _give_up(core: "Core", task: Task, error: str, body: bytes) -> None:
    task.state = after(task.state, Trigger.EXHAUST)
    core.tasks.pop(task.id, None)
    core.counters.failed += 1
    core.decision.writes.failed.append((task.id, task.lease, error, body))


def _fail(core: "Core", task: Task, error: str, body: bytes, spread: float, after_s: float | None = None) -> None:
    """`after_s` is when the task itself wants to be tried again; it has no more attempts for that."""
    again_at = retry_at(task.options.retry, task.attempt, 0.0 if after_s is not None else spread, core.now)
    if again_at is not None and after_s is not None:
        again_at = core.now + after_s
    if again_at is None or 0 < task.terms.deadline <= again_at:
        _give_up(core, task, error, body)
        return
    task.state = after(task.state, Trigger.FAIL)
    task.ready_at = to_micros(again_at)
    core.counters.retried += 1
    core.decision.writes.retried.append((task.id, task.lease, task.ready_at, task.losses, error, body))
    core.backlog.defer(task)


def _cause_of_death(core: "Core", task: Task, cause: str) -> tuple[str, str]:
    timeout_s = task.options.limits.timeout_s
    ran_s = core.now - task.started_at
    if not 0 < timeout_s <= ran_s or not task.started_at:
        return "WorkerDied", cause
    return "TimeLimitExceeded", f"the attempt could not be stopped after {timeout_s:g} s, its time limit: {cause}"
