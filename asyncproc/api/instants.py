"""The instants of a new task, and what is wrong with them."""

from asyncproc.core.task import MAX_DELAY_S
from asyncproc.wire import Problem, TaskBody, instant


def wrong_instant(body: TaskBody, now: float, ready_at: float) -> Problem | None:
    """The first that cannot be, without the index of the task."""
    if body.run_at is not None and body.delay is not None:
        return _problem("runAt", "stands beside delay: name one of them")
    for name, at in (("runAt", body.run_at), ("startBy", body.start_by), ("deadline", body.deadline)):
        if at is not None and at.timestamp() > now + MAX_DELAY_S:
            return _problem(name, f"must be before {instant(now + MAX_DELAY_S)}")
    if body.start_by is not None and body.start_by.timestamp() < ready_at:
        return _problem("startBy", f"must not be before {instant(ready_at)}, when the task is ready")
    earliest = body.start_by.timestamp() if body.start_by is not None else ready_at
    if body.deadline is not None and body.deadline.timestamp() < earliest:
        return _problem("deadline", f"must not be before {instant(earliest)}, when the task may begin")
    return None


def _problem(field: str, message: str) -> Problem:
    return Problem(index=None, field=field, message=message)
