"""What a task sees of the tasks that it depended on."""

import asyncio
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from asyncproc.core import task as core
from asyncproc.errors import AsyncprocError

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of all results of the parents of one task: they are in memory at once."""

Rows: TypeAlias = list[tuple[bytes, str | None, bytes | None, str | None]]
"""Id, state, result as JSON, error; no state where the task is not kept any more."""
Chunk: TypeAlias = tuple[int, str | None, Rows]
"""How many parents there are, their names (a JSON object of names to ids) with the first of them, and the next rows."""


def parent_ids(given: Sequence[str], on_failure: str, room: int) -> core.Parents:
    """What a task depends on, as code says it. Raises `ValueError` for what cannot be; `room` is for so many ids."""
    if isinstance(given, str):
        raise ValueError("depends_on is a str: it must be a list of ids")
    try:
        ids = tuple(dict.fromkeys(UUID(task_id).bytes for task_id in given))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"depends_on is {given!r:.200}: it must be ids of tasks") from None
    if on_failure not in tuple(core.OnParentFailure):
        raise ValueError(f"on_parent_failure is {on_failure!r:.100}: it must be fail, skip or run")
    if len(ids) > min(core.MAX_PARENTS, room):
        raise ValueError(
            f"depends_on has {len(ids)} ids: a task may have {core.MAX_PARENTS} parents, and what one task enqueues"
            f" {core.MAX_EDGES} together"
        )
    return core.Parents(ids, core.OnParentFailure(on_failure))


class ParentsReader(Protocol):
    """Where a worker gets them from; workers have no database of their own."""

    async def read(self, task_id: str, start: int) -> Chunk:
        """Some of the parents, in their order, from number `start` on."""


@dataclass(eq=False)
class ParentsUnread(AsyncprocError):
    """The results of the parents could not be had: the attempt fails, and the next one asks again."""

    cause: str

    def __str__(self) -> str:
        return f"ctx.parents: {self.cause}"


@dataclass(frozen=True, slots=True)
class Parent:
    """A task that had to end first."""

    id: str
    state: str
    """`succeeded`, `failed`, `cancelled`, or `gone` where it is not kept any more; any other where somebody runs it
    again."""
    result: Any
    """What it returned; None where it did not succeed."""
    error: str | None


class Parents(Mapping[str, Parent]):
    """By id, in the order of `dependsOn`; those that were named by a `ref` are found by it too.

    They are read when first asked for. An `async def` task says `await ctx.parents` first.
    """

    def __init__(self, task_id: str, reader: ParentsReader | None) -> None:
        self._task_id = task_id
        self._reader = reader
        self._refs: dict[str, str] = {}
        self._found: dict[str, Parent] | None = None

    def __await__(self) -> Generator[Any, None, "Parents"]:
        return self._loaded().__await__()

    def __getitem__(self, name: str) -> Parent:
        found = self._all()
        return found[self._refs.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    async def _loaded(self) -> "Parents":
        if self._found is None:
            self._found = await self._read()
        return self

    def _all(self) -> dict[str, Parent]:
        if self._found is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                self._found = asyncio.run(self._read())
            else:
                raise ParentsUnread("an async task reads them by `await ctx.parents` first")
        return self._found

    async def _read(self) -> dict[str, Parent]:
        if self._reader is None:
            raise ParentsUnread("this worker has no way to read them: run the task in an asyncproc pool")
        found: dict[str, Parent] = {}
        number, size, total = 0, 0, 1
        while number < total:
            total, refs, rows = await self._reader.read(self._task_id, number)
            if refs is not None:
                self._refs = {name: str(UUID(hexadecimal)) for name, hexadecimal in json.loads(refs).items()}
            if not rows and number < total:
                raise ParentsUnread(f"{number} of {total} could be read")
            for task_id, state, result, error in rows:
                size += len(result or b"")
                if size > MAX_BYTES:
                    raise ParentsUnread(f"the results are more than {MAX_BYTES} bytes together")
                key = str(UUID(bytes=task_id))
                found[key] = Parent(key, state or "gone", None if result is None else json.loads(result), error)
            number += len(rows)
        return found
