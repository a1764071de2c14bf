"""Rows to tasks, and back-off columns to policies; equal options become one object. What an id says of its row."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import State
from asyncproc.core.task import Options, Task, TaskId

_CLOCKS_APART_S: Final = 86_400.0


def to_tasks(rows: Sequence[Sequence[Any]]) -> list[Task]:
    """Rows of `statements.TASK_COLUMNS`."""
    seen: dict[Options, Options] = {}
    tasks: list[Task] = []
    for row in rows:
        (id_, payload, left_out, type_, queue, priority, most, base_s, factor, cap_s, jitter, created_by,
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
                left_out,
            )
        )
    return tasks


def not_ended_before(ids: Iterable[TaskId]) -> float:
    """An instant before which none of these tasks ended: partitions that are older need not be looked into.

    Ids carry the time of their making, by the clock of whoever made them, which may be a day ahead of the database's.
    An id of somebody else's making, not a UUIDv7, says nothing.
    """
    made_ms = min((int.from_bytes(task_id[:6]) if task_id[6] >> 4 == 7 else 0 for task_id in ids), default=0)
    return made_ms / 1000 - _CLOCKS_APART_S
