"""Bytes of a request to tasks that Postgres stores and a worker parses; or to what is wrong, by index and field.

The fast path parses once. Only where it fails is the body parsed again, slower, to say where.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import Request

from asyncproc.api.admission import Held
from asyncproc.errors import AsyncprocError
from asyncproc.wire import EnqueueBody, Problem, TaskBody

READ_TIMEOUT_S: Final = 30.0
"""Whoever sends slower holds the place of others for no longer than this."""
TASKS_AT_ONCE: Final = 100
"""Tasks that are worked on before others get their turn: about a millisecond."""
MAX_DEPTH: Final = 32
MAX_PROBLEMS: Final = 100
_SHOWN: Final = 10
_DIGITS: Final = 18
_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"
_DEPTH_OF_TASKS: Final = 2
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


@dataclass(eq=False)
class BodyRefused(AsyncprocError):
    """The request cannot be taken; nothing of it was enqueued."""

    status: int
    message: str
    problems: list[Problem] = field(default_factory=list)

    def __str__(self) -> str:
        return self.message


def refuse(problems: Sequence[Problem], status: int = 400) -> BodyRefused:
    lines = [_line(problem) for problem in problems[:_SHOWN]]
    more = len(problems) - len(lines)
    return BodyRefused(status, "; ".join(lines) + (f"; and {more} more" if more else ""), list(problems[:MAX_PROBLEMS]))


def _line(problem: Problem) -> str:
    where = "" if problem.index is None else f"tasks[{problem.index}]"
    field_name = f".{problem.field}" if where and problem.field else problem.field
    return f"{where}{field_name}: {problem.message}" if where or field_name else problem.message


def declared_size(request: Request, most: int) -> int:
    """Bytes that the body will have, 0 where that is not said. Raises `BodyRefused`."""
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal():
        return 0
    if len(declared) > _DIGITS or int(declared) > most:
        raise BodyRefused(413, f"the body is {declared[:_DIGITS]} bytes: at most {most} are allowed")
    return int(declared)


async def read(request: Request, most: int, held: Held) -> bytes:
    """The whole body, refused as soon as it is known to be too large. Raises `BodyRefused` and `TooManyRequests`."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise BodyRefused(413, f"the body is over {most} bytes, which is the most that is allowed")
                held.has(size)
                chunks.append(chunk)
    except TimeoutError:
        raise BodyRefused(408, f"the body did not arrive within {READ_TIMEOUT_S:g} s: send the request again") from None
    return b"".join(chunks)


async def parse_enqueue(body: bytes, max_tasks: int) -> list[TaskBody]:
    """Raises `BodyRefused`. Others on this loop get their turn in between: they may only want to be refused."""
    document = _document(body)
    if not isinstance(document, dict):
        raise BodyRefused(400, "the body must be an object with tasks")
    document = fold_keys(document, _REQUEST_KEYS)
    tasks = document.get("tasks")
    problems: list[Problem] = []
    if not isinstance(tasks, list) or not tasks:
        _validated(document, 0, problems)
        raise refuse(problems)
    if len(tasks) > max_tasks:
        raise BodyRefused(413, f"tasks: {len(tasks)} in one request, at most {max_tasks} are allowed")
    parts: list[list[Any]] = []
    for first in range(0, len(tasks), TASKS_AT_ONCE):
        if first:
            await asyncio.sleep(0)
        part = tasks[first : first + TASKS_AT_ONCE]
        parts.append([fold_keys(task, _TASK_KEYS) if isinstance(task, dict) else task for task in part])
        problems += _unstorable(parts[-1], first)
    if problems:
        raise refuse(problems)
    parsed: list[TaskBody] = []
    for number, part in enumerate(parts):
        if number:
            await asyncio.sleep(0)
        parsed += _validated({"tasks": part}, number * TASKS_AT_ONCE, problems)
    if problems:
        raise refuse(problems)
    return parsed


def _validated(document: dict[str, Any], first: int, problems: list[Problem]) -> list[TaskBody]:
    """What is wrong is added to `problems`; `first` is the index of the first of these tasks in the request."""
    try:
        return EnqueueBody.model_validate(document).tasks
    except ValidationError as error:
        for problem in problems_of(error.errors(include_url=False)):
            index = None if problem.index is None else problem.index + first
            problems.append(problem.model_copy(update={"index": index}))
        return []


_REQUEST_KEYS: Final = {"tasks": "tasks"}
_TASK_KEYS: Final = {info.alias.casefold(): info.alias for info in TaskBody.model_fields.values() if info.alias}


def fold_keys(given: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """Keys matched without regard to case; one that is spelt exactly wins over one that is not."""
    folded = {name: given[name] for name in known.values() if name in given}
    if len(folded) < len(given):
        for key, value in given.items():
            name = known.get(key.casefold())
            if name is not None:
                folded.setdefault(name, value)
    return folded


def problems_of(
    errors: Iterable[ErrorDetails], index: int | None = None, under: tuple[str, ...] = (), *, of_tasks: bool = True
) -> Iterator[Problem]:
    """Pydantic's errors by index and field; where `index` is None it is read from a path such as `tasks.3.priority`,
    unless these are not errors of tasks."""
    for error in errors:
        loc = error["loc"]
        at = index
        if of_tasks and at is None and len(loc) > 1 and isinstance(loc[1], int):
            at, loc = loc[1], loc[2:]
        message = error["msg"].removeprefix("Value error, ")
        yield Problem(index=at, field=_path((*under, *loc)), message=message)


def _path(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text[:300]


def _document(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise _why_not(body, error) from None


def _why_not(body: bytes, cause: ValueError) -> BodyRefused:
    """Say by index and field what the strict parser only gave a position for, where a lenient one gets through."""
    problems: list[Problem] = []
    try:
        document = json.loads(body)
    except RecursionError:
        problems = [Problem(index=_deep_task(body), field="payload", message=_TOO_DEEP)]
    except ValueError:
        pass
    else:
        tasks = fold_keys(document, _REQUEST_KEYS).get("tasks") if isinstance(document, dict) else None
        problems = list(_unstorable(tasks, 0)) if isinstance(tasks, list) else []
    return refuse(problems) if problems else BodyRefused(400, f"the body is not JSON: {cause}")


def _deep_task(body: bytes) -> int:
    """Index of the first task that is nested too deep for any parser."""
    depth = index = 0
    for token in _TOKEN.finditer(body):
        mark = token[0]
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        elif mark == b"," and depth == _DEPTH_OF_TASKS:
            index += 1
        if depth > _DEPTH_OF_TASKS + MAX_DEPTH + 1:
            break
    return index


def _unstorable(tasks: list[Any], first: int) -> Iterator[Problem]:
    """What is JSON to a parser, but cannot be kept in Postgres or read back by every other parser.

    `first` is the index of the first of these tasks in the request."""
    for index, task in enumerate(tasks, first):
        found = _first_flaw(task)
        if found is not None:
            path, message = found
            yield Problem(index=index, field=_path(path), message=message)


def flaw_of(field: str, value: object) -> Problem | None:
    """What keeps a JSON value from being stored, of whatever request."""
    found = _first_flaw({field: value})
    return None if found is None else Problem(index=None, field=_path(found[0]), message=found[1])


def _first_flaw(root: object) -> tuple[list[int | str], str] | None:
    """Path and message of the first flaw below `root`; a loop, because a hostile document must not end our stack."""
    stack: list[tuple[object, tuple[Any, ...], int]] = [(root, (), 0)]
    while stack:
        value, path, depth = stack.pop()
        if isinstance(value, dict):
            children: Iterable[tuple[Any, object]] = value.items()
            keys: Iterable[str] = value
        elif isinstance(value, list):
            children, keys = enumerate(value), ()
        else:
            continue
        # The task itself is no level of its payload's nesting.
        if depth > MAX_DEPTH:
            return _unroll(path), _TOO_DEEP
        for key in keys:
            if (flaw := _flaw(key)) is not None:
                return _unroll(path), f"a key {flaw}"
        for key, child in children:
            kind = type(child)
            if kind is dict or kind is list:
                stack.append((child, (path, key), depth + 1))
            elif (flaw := _flaw(child)) is not None:
                return _unroll((path, key)), flaw
    return None


def _flaw(value: object) -> str | None:
    if isinstance(value, str):
        if "\x00" in value:
            return "contains NUL, which Postgres cannot store"
        # A lone surrogate gets here only from the lenient parser; ASCII cannot hold one.
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            return "contains half of a surrogate pair, which is not Unicode"
    elif isinstance(value, float) and not isfinite(value):
        return "is not a finite number"
    return None


def _unroll(path: tuple[Any, ...]) -> list[int | str]:
    parts: list[int | str] = []
    while path:
        path, key = path
        parts.append(key if isinstance(key, int) else str(key).encode("utf-8", "replace").decode().replace("\x00", ""))
    return parts[::-1]
