"""One bad row never fails its neighbours: what of a batch can be written, is."""

from collections.abc import Awaitable, Callable, Container
from typing import Final, TypeAlias

from asyncproc.core.decision import Writes
from asyncproc.core.task import TaskId
from asyncproc.storage.batch import Batch, build

Write: TypeAlias = Callable[[Batch], Awaitable[str | None]]
"""Writes a batch in one transaction; answers what is wrong where a row of it cannot be kept."""

_BY_ID: Final = (
    "succeeded", "failed", "overdue", "retried", "requeued", "snoozed", "stopping", "cancelled", "revived", "changed",
    "replaced", "came_due", "claims", "requests", "notes", "ticks", "overflown",
)  # fmt: skip


async def salvage(write: Write, writes: Writes, now: float) -> dict[TaskId, str]:
    """Write all but the tasks with a row that Postgres refuses; returns those, each with what is wrong.

    A task's rows stay together, and so do the tasks of one idempotency key, in one transaction and in their order.
    Parts that are written stay written: all of them compare before they change, so whoever is interrupted here may
    begin anew.
    """
    rejected: dict[TaskId, str] = {}
    parts = [_groups(writes)]
    while parts:
        groups = parts.pop()
        problem = await write(build(_only(writes, {task_id for group in groups for task_id in group}), now))
        if problem is None:
            continue
        if len(groups) == 1:
            rejected.update(dict.fromkeys(groups[0], problem))
            continue
        middle = len(groups) // 2
        parts += [groups[middle:], groups[:middle]]
    return rejected


def _groups(writes: Writes) -> list[list[TaskId]]:
    """Ids that are written together or not at all."""
    ids = dict.fromkeys(row[0] for name in _BY_ID for row in getattr(writes, name))
    ids.update(dict.fromkeys(task.id for task in writes.inserts))
    groups = _families([used[4] for used in writes.keys], writes)
    for group in groups:
        for task_id in group:
            ids.pop(task_id, None)
    return [[task_id] for task_id in ids] + groups


def _families(groups: list[list[TaskId]], writes: Writes) -> list[list[TaskId]]:
    """The same groups, and those of new tasks that wait for each other: a child is not to come before its parents."""
    if not writes.depends:
        return groups
    new = {task.id for task in writes.inserts}
    group_of = {task_id: group for group in groups for task_id in group}
    for child, parents, *_ in writes.depends:
        for task_id in (child, *(parent for parent in parents if parent in new)):
            ours, theirs = group_of.setdefault(child, [child]), group_of.setdefault(task_id, [task_id])
            if ours is not theirs:
                ours.extend(theirs)
                group_of.update(dict.fromkeys(theirs, ours))
    return list({id(group): group for group in group_of.values()}.values())


def _only(writes: Writes, ids: Container[TaskId]) -> Writes:
    part = Writes(inserts=[task for task in writes.inserts if task.id in ids])
    part.depends = [row for row in writes.depends if row[0] in ids]
    # Of whichever part: what has not ended is left alone.
    part.parents = writes.parents
    # How far a schedule is goes with every part: what is refused of its ticks would be refused again.
    part.positions, part.positions_over = writes.positions, writes.positions_over
    part.keys = [used for used in writes.keys if used[4][0] in ids]
    for name in _BY_ID:
        setattr(part, name, [row for row in getattr(writes, name) if row[0] in ids])
    return part
