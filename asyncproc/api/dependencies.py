"""`dependsOn` of new tasks: refs become ids, and what cannot be is refused by index and field."""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from asyncproc.api.body import refuse
from asyncproc.clock import id_text
from asyncproc.core.task import MAX_EDGES, NewTask, OnParentFailure, Parents, TaskId
from asyncproc.storage.inspector import Inspector
from asyncproc.wire import Problem, TaskBody

_SHOWN: Final = 10


class _Named(NamedTuple):
    task: int
    position: int
    text: str


async def tied(bodies: Sequence[TaskBody], tasks: list[NewTask], inspector: Inspector) -> list[NewTask]:
    """The same tasks, those with `dependsOn` with their parents. Raises `BodyRefused`, and `StorageUnavailable`."""
    if all(body.depends_on is None and body.ref is None and body.on_parent_failure is None for body in bodies):
        return tasks
    problems: list[Problem] = []
    refs = _refs(bodies, problems)
    named = [
        _Named(index, position, text)
        for index, body in enumerate(bodies)
        for position, text in enumerate(body.depends_on or ())
    ]
    if len(named) > MAX_EDGES:
        raise refuse([_at(named[MAX_EDGES].task, "dependsOn", f"more than {MAX_EDGES} of all tasks together")])
    ids = {text: tasks[index][0] for text, index in refs.items()}
    by_id = {one.text: known for one in named if one.text not in refs and (known := id_of(one.text)) is not None}
    existing = await inspector.existing(list(by_id.values())) if by_id else set()
    ids |= {text: known for text, known in by_id.items() if known in existing}
    problems += [_unknown(one, known=by_id.get(one.text)) for one in named if one.text not in ids]
    problems += _conflicts(bodies)
    if not problems and (cycle := _cycle(bodies, refs)):
        line = " -> ".join(cycle[:_SHOWN] + (["..."] if len(cycle) > _SHOWN else []))
        problems.append(_at(refs[cycle[0]], "dependsOn", f"it would wait for itself: {line}"))
    if problems:
        raise refuse(sorted(problems, key=lambda problem: problem.index or 0))
    return [
        (*task[:4], task[4]._replace(parents=_parents(body, ids, refs))) if body.depends_on else task
        for body, task in zip(bodies, tasks, strict=True)
    ]


def id_of(text: str) -> TaskId | None:
    try:
        return UUID(text).bytes
    except ValueError:
        return None


def _refs(bodies: Sequence[TaskBody], problems: list[Problem]) -> dict[str, int]:
    refs: dict[str, int] = {}
    for index, body in enumerate(bodies):
        if body.ref is None:
            continue
        if id_of(body.ref) is not None:
            problems.append(_at(index, "ref", "must not look like the id of a task"))
        elif refs.setdefault(body.ref, index) != index:
            problems.append(_at(index, "ref", f"is the ref of tasks[{refs[body.ref]}] already"))
    return refs


def _unknown(one: _Named, known: TaskId | None) -> Problem:
    field = f"dependsOn[{one.position}]"
    if known is not None:
        return _at(one.task, field, f"there is no task {id_text(known)}")
    return _at(one.task, field, f"{one.text} is neither the ref of a task of this request nor the id of a task")


def _conflicts(bodies: Sequence[TaskBody]) -> list[Problem]:
    return [
        _at(index, "onParentFailure", "is for tasks with dependsOn")
        for index, body in enumerate(bodies)
        if body.on_parent_failure is not None and not body.depends_on
    ]


def _cycle(bodies: Sequence[TaskBody], refs: dict[str, int]) -> list[str]:
    """Refs of tasks that wait for each other, the first again at the end; empty where there are none."""
    open_parents = {
        index: {refs[text] for text in body.depends_on or () if text in refs} for index, body in enumerate(bodies)
    }
    children: dict[int, list[int]] = {}
    for index, parents in open_parents.items():
        for parent in parents:
            children.setdefault(parent, []).append(index)
    free = [index for index, parents in open_parents.items() if not parents]
    while free:
        ended = free.pop()
        del open_parents[ended]
        for child in children.get(ended, ()):
            open_parents[child].discard(ended)
            if not open_parents[child]:
                free.append(child)
    if not open_parents:
        return []
    path: list[int] = []
    at = min(open_parents)
    while at not in path:
        path.append(at)
        at = min(open_parents[at])
    names = {index: text for text, index in refs.items()}
    return [names[index] for index in [*path[path.index(at) :], at]]


def _parents(body: TaskBody, ids: dict[str, TaskId], refs: dict[str, int]) -> Parents:
    texts = body.depends_on or []
    names = {text: ids[text].hex() for text in texts if text in refs}
    on_failure = body.on_parent_failure or OnParentFailure.FAIL
    distinct = tuple(dict.fromkeys(ids[text] for text in texts))
    return Parents(distinct, on_failure, json.dumps(names).encode() if names else b"")


def _at(index: int, field: str, message: str) -> Problem:
    return Problem(index=index, field=field, message=message)
