"""Rows to tasks, and back-off columns to policies; equal options become one object."""

from collections.abc import Sequence
from typing import Any

from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import State
from asyncproc.core.task import Options, Task


def to_tasks(rows: Sequence[Sequence[Any]]) -> list[Task]:
    """Rows of `statements.TASK_COLUMNS`."""
    seen: dict[Options, Options] = {}
    tasks: list[Task] = []
    for row in rows:
        (id_, payload, type_, queue, priority, most, base_s, factor, cap_s, jitter, created_by,
         state, ready_at, created_at, rank, attempt, lease, losses, worker) = row  # fmt: skip
        options = Options(type_, queue, priority, RetryPolicy(most, base_s, factor, cap_s, jitter), created_by)
        options = seen.setdefault(options, options)
        tasks.append(
            Task(
                id_.bytes,
                payload.encode(),
                options,
                State(state),
                ready_at,
                created_at,
                rank,
                attempt,
                lease,
                losses,
                worker,
            )
        )
    return tasks
