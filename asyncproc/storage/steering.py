"""What operators set at run time: written by the reign alone, read by everybody."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, assert_never

from asyncproc.changes import Delete, Drain, PauseFor, Put, Resume, RuleChange
from asyncproc.core.steering import Pause
from asyncproc.pool_settings import PoolRuleSettings
from asyncproc.rules import QueueRuleSettings, RateLimitSettings, Stored, TypeRuleSettings, from_document
from asyncproc.storage.connection import Connection, Fence
from asyncproc.storage.statements import steering


class Purge(NamedTuple):
    """All that waited in the queue at that instant is to be cancelled."""

    queue: str
    asked_at: float
    cancelled: int = 0


async def change(connection: Connection, fence: Fence, asked: RuleChange, now: float) -> tuple[bool, Stored]:
    """Carry it out in a transaction of its own; whether there was anything to change, and all that is stored then.

    Safe to repeat, but for the answer to one that creates or deletes.
    """
    async with connection.transaction():
        await fence(connection)
        done = await _carry_out(connection, asked, now)
        await connection.execute(steering.COUNT_ON)
        rows = await (await connection.execute(steering.STORED)).fetchall()
    return done, to_stored(rows)


async def _carry_out(connection: Connection, asked: RuleChange, now: float) -> bool:
    match asked:
        case Put(kind, name, document, mode):
            text = document.decode()
            if mode == "merge":
                cursor = await connection.execute(steering.MERGE, [kind, name, text, text])
            else:
                cursor = await connection.execute(_PUT[mode], [kind, name, text])
        case Delete(kind, name):
            cursor = await connection.execute(steering.DELETE, [kind, name])
            if kind == "queue":
                await connection.execute(steering.FILL, [name])
            if kind in ("queue", "type"):
                await connection.execute(steering.RESUME, [kind, name, now])
        case PauseFor(pause, for_s):
            until = now + for_s if for_s else pause.until or None
            columns = [pause.scope, pause.name, now, until, pause.reason, pause.by]
            cursor = await connection.execute(steering.PAUSE, columns)
        case Resume(scope, name):
            cursor = await connection.execute(steering.RESUME, [scope, name, now])
            if scope == "queue":
                await connection.execute(steering.FILL, [name])
        case Drain(queue):
            cursor = await connection.execute(steering.DRAIN, [queue, now])
        case _:
            assert_never(asked)
    return cursor.rowcount > 0


_PUT: Final = {"create": steering.CREATE, "replace": steering.REPLACE}


async def stored(connection: Connection, _: Fence) -> Stored:
    return to_stored(await (await connection.execute(steering.STORED)).fetchall())


async def begin_purge(connection: Connection, fence: Fence, queue: str, now: float) -> None:
    async with connection.transaction():
        await fence(connection)
        await connection.execute(steering.BEGIN_PURGE, [queue, now])


async def purges(connection: Connection, _: Fence) -> list[Purge]:
    """Those that are under way."""
    return [Purge(*row) for row in await (await connection.execute(steering.PURGES)).fetchall()]  # type: ignore[arg-type]


async def count_purged(connection: Connection, fence: Fence, queue: str, number: int) -> None:
    async with connection.transaction():
        await fence(connection)
        await connection.execute(steering.COUNT_PURGED, [number, queue])


async def end_purge(connection: Connection, fence: Fence, purge: Purge) -> None:
    async with connection.transaction():
        await fence(connection)
        await connection.execute(steering.END_PURGE, [purge.queue, purge.asked_at])


def to_stored(rows: Sequence[tuple[Any, ...]]) -> Stored:
    """Rows of `statements.steering.STORED`."""
    version = 0
    queues: dict[str, QueueRuleSettings] = {}
    types: dict[str, TypeRuleSettings] = {}
    rates: dict[str, RateLimitSettings] = {}
    pools: dict[str, PoolRuleSettings] = {}
    pauses: list[Pause] = []
    draining: dict[str, float] = {}
    for kind, name, text, since, until, reason, by in rows:
        if kind == "queue" and (queue := from_document(QueueRuleSettings, f"queue {name}", text)) is not None:
            queues[name] = queue
        elif kind == "type" and (of_type := from_document(TypeRuleSettings, f"type {name}", text)) is not None:
            types[name] = of_type
        elif kind == "rate" and (rate := from_document(RateLimitSettings, f"rate limit {name}", text)) is not None:
            rates[name] = rate
        elif kind == "pool" and (pool := from_document(PoolRuleSettings, f"pool {name}", text)) is not None:
            pools[name] = pool
        elif kind == "pause":
            pauses.append(Pause(text, name, until, reason, by, since))
        elif kind == "draining":
            draining[name] = since
        elif kind == "version":
            version = int(text)
    return Stored(version, queues, types, rates, pools, tuple(pauses), draining)
