"""Rows to tasks, and back-off columns to policies; equal options become one object. What an id says of its row."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import State
from asyncproc.core.task import NO_TERMS, Options, Task, TaskId, Terms, TimeLimits

_CLOCKS_APART_S: Final = 86_400.0
_AFTER_OPTIONS: Final = 19
_STATES: Final = {state.value: state for state in State}


def to_tasks(rows: Sequence[tuple[Any, ...]]) -> list[Task]:
    """Rows of `statements.TASK_COLUMNS`."""
    seen: dict[tuple[Any, ...], Options] = {}
    tasks: list[Task] = []
    for row in rows:
        id_, payload, left_out = row[:3]
        state, ready_at, created_at, rank, attempt, lease, losses, worker, *terms, stop, left = row[_AFTER_OPTIONS:]
        # Most rows share what they are made with; to compare it costs a quarter of making it anew.
        columns = row[3:_AFTER_OPTIONS]
        options = seen.get(columns)
        if options is None:
            options = seen[columns] = _options(columns)
        tasks.append(
            Task(
                id_,
                payload,
                options,
                _STATES[state],
                ready_at,
                created_at,
                rank,
                attempt,
                lease,
                losses,
                worker,
                left_out,
                terms=Terms(*terms) if any(terms) else NO_TERMS,
                stop_reason=stop,
                checkpoint_bytes=left,
            )
        )
    return tasks


def _options(columns: Sequence[Any]) -> Options:
    type_, queue, priority, most, base_s, factor, cap_s, jitter, timeout_s, soft_timeout_s, *keys, created_by = columns
    retry, limits = RetryPolicy(most, base_s, factor, cap_s, jitter), TimeLimits(timeout_s, soft_timeout_s)
    return Options(type_, queue, priority, retry, created_by, limits, *keys)


def not_ended_before(ids: Iterable[TaskId]) -> float:
    """An instant before which none of these tasks ended: partitions that are older need not be looked into.

    Ids carry the time of their making, by the clock of whoever made them, which may be a day ahead of the database's.
    An id of somebody else's making, not a UUIDv7, says nothing.
    """
    made_ms = min((int.from_bytes(task_id[:6]) if task_id[6] >> 4 == 7 else 0 for task_id in ids), default=0)
    return made_ms / 1000 - _CLOCKS_APART_S
