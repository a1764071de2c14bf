"""How many tasks match, how they fail, what is ahead of one: reads that answer in time, exactly or as an estimate."""

from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

from asyncproc.core.asked import Action, applies_to
from asyncproc.core.record import DeadGroup, TaskFilter
from asyncproc.core.states import FINAL
from asyncproc.core.task import TaskId
from asyncproc.errors import StorageUnavailable
from asyncproc.storage.inspector import Inspector, filter_parameters
from asyncproc.storage.statements import dependents, reads

IN_TIME_S: Final = 0.7
"""How long an exact answer may take; the reader waits a second at most."""

LONGEST_S: Final = 5.0


class Count(NamedTuple):
    number: int
    estimated: bool


async def count(inspector: Inspector, action: Action, narrowed: TaskFilter) -> Count:
    """The tasks that match and that the action is for."""
    text, asked = _of(action, narrowed, reads.COUNT_LIVE, reads.COUNT_DONE)
    return await _counted(inspector, text, asked)


async def is_any(inspector: Inspector, action: Action, narrowed: TaskFilter) -> bool | None:
    """Whether there is such a task; None where that is not known in time."""
    text, asked = _of(action, narrowed, reads.ANY_LIVE, reads.ANY_DONE)
    rows = await inspector.within(IN_TIME_S, text, asked)
    return None if rows is None else bool(rows[0][0])


async def is_known(inspector: Inspector, narrowed: TaskFilter) -> bool | None:
    """The same, in whatever state."""
    found = [await is_any(inspector, action, narrowed) for action in (Action.CANCEL, Action.DELETE)]
    return True if True in found else None if None in found else False


async def queues(inspector: Inspector) -> list[str]:
    """Queues with tasks that are ready or running, as far as that is known in time."""
    return [row[0] for row in await inspector.within(IN_TIME_S, reads.QUEUES, {}) or []]


async def ahead(inspector: Inspector, queue: str, rank: float, task_id: TaskId) -> dict[str, int] | None:
    """Ready and running tasks of the queue before this place, by type; None where that is not known in time."""
    place = {"queue": queue, "rank": rank, "id": UUID(bytes=task_id)}
    rows = await inspector.within(IN_TIME_S, reads.AHEAD, place)
    return None if rows is None else {row[0]: row[1] for row in rows}


async def estimate_ahead(inspector: Inspector, queue: str, rank: float, task_id: TaskId) -> int:
    return await _estimate(inspector, reads.AHEAD, {"queue": queue, "rank": rank, "id": UUID(bytes=task_id)})


async def waits_for(inspector: Inspector, task_id: TaskId, most: int) -> list[tuple[TaskId, str]]:
    """Some of the tasks that a blocked one waits for, with their states, as far as that is known in time."""
    rows = await inspector.within(IN_TIME_S, dependents.WAITS_FOR, [UUID(bytes=task_id), most])
    return [(row[0].bytes, row[1]) for row in rows or []]


async def dead_groups(inspector: Inspector, narrowed: TaskFilter, limit: int) -> list[DeadGroup]:
    """The largest first. Raises `StorageUnavailable` where that takes too long."""
    rows = await inspector.within(LONGEST_S, reads.DEAD_GROUPS, filter_parameters(narrowed) | {"limit": limit})
    if rows is None:
        raise StorageUnavailable(f"the groups could not be counted within {LONGEST_S:g} s: narrow the filter")
    return [
        DeadGroup(fingerprint, type_, error or "", number, first_at, last_at, example.bytes)
        for fingerprint, type_, number, first_at, last_at, example, error in rows
    ]


def _of(
    action: Action, narrowed: TaskFilter, live: LiteralString, done: LiteralString
) -> tuple[LiteralString, dict[str, object]]:
    domain = sorted(applies_to(action))
    text = done if FINAL.issuperset(domain) else live
    return text, filter_parameters(narrowed) | {"domain": domain}


async def _counted(inspector: Inspector, text: LiteralString, asked: dict[str, object]) -> Count:
    rows = await inspector.within(IN_TIME_S, text, asked)
    if rows is not None:
        return Count(rows[0][0], estimated=False)
    return Count(await _estimate(inspector, text, asked), estimated=True)


async def _estimate(inspector: Inspector, text: LiteralString, asked: dict[str, object]) -> int:
    """What the planner expects, from what the table was last known to be like."""
    rows = await inspector.within(LONGEST_S, f"EXPLAIN (FORMAT JSON) {text}", asked) or []
    plan: dict[str, Any] = rows[0][0][0]["Plan"]
    while plan["Node Type"] in {"Aggregate", "Gather", "Gather Merge", "Sort"}:
        (plan,) = plan["Plans"]
    return int(plan["Plan Rows"])
