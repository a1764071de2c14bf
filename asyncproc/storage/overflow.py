"""Counts those who wait where a bound may be reached."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

from asyncproc.core.crowd import Crowd, Place
from asyncproc.storage.arrays import PgArray, ints, texts
from asyncproc.storage.connection import Connection, Fence
from asyncproc.storage.statements import overflow

_NAMES: Final = 2


async def count(connection: Connection, _: Fence, crowds: Mapping[Place, Crowd]) -> None:
    """Fill in those that are not counted yet."""
    unknown = [(place, crowd) for place, crowd in crowds.items() if crowd.waiting is None]
    queues = [each for each in unknown if not each[0][1]]
    keys = [each for each in unknown if each[0][1]]
    if queues:
        # Where more wait than can go at once nobody needs to know how many.
        most = ints(crowd.limit + crowd.to_read + 1 for _, crowd in queues)
        await _fill(connection, queues, [texts(queue for (queue, _), _ in queues)], overflow.COUNT, [most])
        await _read_oldest(connection, queues, overflow.OLDEST, 1)
    if keys:
        await _fill(connection, keys, _names(keys, _NAMES), overflow.COUNT_KEYS, [])
        await _read_oldest(connection, keys, overflow.OLDEST_OF_KEYS, _NAMES)


async def _fill(
    connection: Connection,
    crowds: Sequence[tuple[Place, Crowd]],
    names: Sequence[PgArray],
    text: LiteralString,
    more: Sequence[PgArray],
) -> None:
    for number, waiting in await _rows(connection, text, [*names, *more]):
        crowds[number - 1][1].waiting = waiting


async def _read_oldest(
    connection: Connection, crowds: Sequence[tuple[Place, Crowd]], text: LiteralString, parts: int
) -> None:
    crowds = [each for each in crowds if each[1].to_read and (each[1].waiting or 0) + each[1].coming > each[1].limit]
    if not crowds:
        return
    most = ints(crowd.to_read for _, crowd in crowds)
    rows = await _rows(connection, text, [*_names(crowds, parts), most])
    for number, task_id, lease, key in sorted(rows):
        crowds[number - 1][1].oldest.append((task_id.bytes, lease, key))


def _names(crowds: Sequence[tuple[Place, Crowd]], parts: int) -> list[PgArray]:
    """Queues, and keys where there are two parts."""
    return [texts(place[part] for place, _ in crowds) for part in range(parts)]


async def _rows(connection: Connection, text: LiteralString, parameters: Iterable[object]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(text, list(parameters))).fetchall()
