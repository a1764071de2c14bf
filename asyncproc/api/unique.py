"""Tasks that are to be the only ones of their kind: their keys, and what they wish."""

from asyncio import sleep
from collections.abc import Sequence
from typing import TypeAlias

from pydantic_core import PydanticSerializationError

from asyncproc.api.body import MAX_PROBLEMS, TASKS_AT_ONCE, refuse
from asyncproc.core.task import NewTask
from asyncproc.core.unique import OnConflict, Wish
from asyncproc.errors import UniqueConflict
from asyncproc.registry import Registry
from asyncproc.unique import NOT_UNIQUE, Unique
from asyncproc.wire import Problem, TaskBody

Parsed: TypeAlias = tuple[list[NewTask], Sequence[Wish | None]]
"""The tasks of a request, and their wishes; without any where no task has one."""


async def with_wishes(bodies: Sequence[TaskBody], tasks: list[NewTask], registry: Registry) -> Parsed:
    """Raises `BodyRefused`."""
    if not registry.uniques and all(body.unique is None for body in bodies):
        return tasks, ()
    wishes: list[Wish | None] = [None] * len(tasks)
    problems: list[Problem] = []
    for index, body in enumerate(bodies):
        if index and not index % TASKS_AT_ONCE:
            await sleep(0)
        unique = registry.uniques.get(body.task_type) if body.unique is None else body.unique
        if unique is None or unique is NOT_UNIQUE:
            continue
        task_id, payload, options, delay_s, terms = tasks[index]
        try:
            key = _key(unique, body.task_type, payload, registry)
        except ValueError as error:
            problems.append(Problem(index=index, field="unique.fields", message=str(error)))
            continue
        wishes[index] = wish = unique.wish()
        if terms.parents is not None and wish.on_conflict is OnConflict.REPLACE:
            message = "cannot stand beside onConflict replace: what another waits for is not replaced"
            problems.append(Problem(index=index, field="dependsOn", message=message))
            continue
        tasks[index] = (task_id, payload, options, delay_s, terms._replace(unique_key=key))
    if problems:
        raise refuse(problems)
    return tasks, wishes if any(wishes) else ()


def conflicts_of(error: UniqueConflict) -> list[Problem]:
    named = list(error.holders)[:MAX_PROBLEMS]
    return [Problem(index=index, field="unique", message=error.problem(index)) for index in named]


def _key(unique: Unique, type_name: str, payload: bytes, registry: Registry) -> str:
    """Raises `ValueError` saying what is wrong with the payload."""
    if unique.key is not None:
        return unique.key
    try:
        return unique.key_of(registry.as_seen(type_name, payload))
    except PydanticSerializationError as error:
        raise ValueError(f"the payload of a {type_name} cannot be compared: {error}") from None
