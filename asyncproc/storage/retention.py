"""Finished tasks go by whole partitions: those of the days to come are made ahead, those that are over are dropped.

Where queues differ in how long they keep them, a partition goes when the last of it is over, and what is over before
that goes out of it row by row. Idempotency keys and ticks of schedules that are over go row by row, some at a time.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from asyncproc.core.retention import Kept, Over
from asyncproc.core.states import FINAL, State
from asyncproc.errors import EpochLost
from asyncproc.storage.arrays import floats, register, texts
from asyncproc.storage.connection import Connection, first_line, hardened, is_away
from asyncproc.storage.statements import idempotency, partitions, reign, schedules
from asyncproc.storage.thinning import Thinning

log = logging.getLogger(__name__)

DAYS_AHEAD: Final = 4
"""Yesterday's or today's included. Few: a look-up by id cannot rule out what lies in the future."""
MONTHLY_FROM_S: Final = 90 * 86_400.0
"""States that are kept for longer are parted by month: a look-up for an old id took 4 ms with 180 partitions, 48 ms
with 1,100."""
SWEEP_EVERY_S: Final = 3600.0
SWEEP_AGAIN_S: Final = 300.0
"""After a sweep that left something undone."""
_SWEEP_S: Final = 60.0
_OPTIONS: Final = "-c lock_timeout=10s -c statement_timeout=10s -c timezone=UTC"
"""How long a partition's readers are waited for; nobody waits behind this wait."""
KEYS_AT_ONCE: Final = 1_000
"""Few: a cycle that uses such a key anew waits for the transaction that deletes it."""
_EPOCH_OVER: Final = "AP001"


def monthly(kept_s: Mapping[State, float]) -> list[State]:
    """The states that are parted by month; what is not named is kept for ever."""
    return [state for state in State if state in FINAL and kept_s.get(state, inf) > MONTHLY_FROM_S]


async def make_ahead(connection: Connection, instant: float | None, monthly: Collection[State]) -> None:
    """Make the partitions for what ends around an instant, now by the database's clock where it is None."""
    await connection.execute(partitions.MAKE_PARTITIONS, [instant, DAYS_AHEAD, texts(monthly)])


@dataclass(slots=True)
class Swept:
    dropped: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Partitions that are over and not dropped yet, and what stands against it."""
    keys: int = 0
    """Idempotency keys that were over and are deleted."""
    ticks: int = 0
    """The same of records of ticks."""
    tasks: int = 0
    """Finished tasks that were over and are deleted, of queues that keep them for less long than others."""


class Retention:
    """Sweeps on a connection of its own, so that the cycle never waits for it.

    `kept_s` says for how long each state is kept at least; what it does not name is kept for ever. `by_queue` is asked
    by each sweep which queues differ; `ticks_s` is the same for the ticks of schedules.
    """

    def __init__(
        self,
        conninfo: str,
        kept_s: Mapping[State, float],
        ticks_s: float = inf,
        by_queue: Callable[[], Mapping[str, Mapping[State, float]]] = dict,
    ) -> None:
        self._conninfo = conninfo
        self._kept_s = kept_s
        self._ticks_s = ticks_s
        self._by_queue = by_queue
        self._thinning = Thinning()
        self._monthly = monthly(kept_s)

    async def run(self, epoch: int) -> None:
        """Sweep once an hour for as long as the epoch reigns. Raises `EpochLost`; all else is tried again."""
        while True:
            wait_s = SWEEP_EVERY_S if await self._is_swept(epoch) else SWEEP_AGAIN_S
            await asyncio.sleep(wait_s)

    async def _is_swept(self, epoch: int) -> bool:
        try:
            async with asyncio.timeout(_SWEEP_S):
                swept = await self.sweep(epoch)
        except TimeoutError:
            log.warning("retention: not done within %g s, tried again", _SWEEP_S)
            return False
        except psycopg.Error as error:
            # Where Postgres is away, the cycle says so already.
            if not is_away(error):
                log.warning("retention: %s; tried again", first_line(error))
            return False
        for name in swept.dropped:
            log.info("retention: %s is over and dropped", name)
        if swept.keys:
            log.info("retention: %d idempotency keys are over and deleted", swept.keys)
        if swept.tasks:
            log.info("retention: %d tasks of queues that keep them for less long are over and deleted", swept.tasks)
        if swept.ticks:
            log.info("retention: %d ticks of schedules are over and deleted", swept.ticks)
        for name, cause in swept.left.items():
            log.warning("retention: %s is over and not dropped yet: %s", name, cause)
        return not swept.left

    async def sweep(self, epoch: int) -> Swept:
        """Make what is to come and drop what is over. Raises `EpochLost`, and `psycopg.Error` where nothing worked."""
        conninfo = hardened(self._conninfo, "asyncproc-retention", _OPTIONS)
        connection: Connection = await AsyncConnection.connect(conninfo, autocommit=True)
        async with connection:
            register(connection)
            if not await _value(connection, partitions.TRY_SWEEP, [partitions.SWEEP_LOCK_KEY]):
                return Swept()
            await self._prove(connection, epoch)
            await make_ahead(connection, None, self._monthly)
            swept, kept = Swept(), Kept(self._kept_s, self._by_queue())
            staying = await self._drop_over(connection, kept, swept)
            swept.keys = await _forget(connection, idempotency.FORGET_KEYS)
            if self._ticks_s < inf:
                swept.ticks = await _forget(connection, schedules.FORGET_TICKS, self._ticks_s)
            # Last: it may take longer than one sweep has, and goes on in the next one.
            for partition, part in staying:
                if part:
                    swept.tasks += await self._thinning.thin(connection, partition, part)
            await connection.execute(partitions.END_SWEEP, [partitions.SWEEP_LOCK_KEY])
            return swept

    async def _drop_over(self, connection: Connection, kept: Kept, swept: Swept) -> list[tuple[str, Over]]:
        """Partitions of which something is over and not all, with what that is."""
        waiting: set[object] = set()
        staying: list[tuple[str, Over]] = []
        shortest = kept.shortest()
        over = await connection.execute(partitions.OVER, [texts(shortest), floats(shortest.values())])
        for name, state, age, attached, detaching in await over.fetchall():
            if state in waiting:
                continue
            its, age_s = State(str(state)), float(str(age))
            if attached and not detaching and age_s < kept.longest(its):
                staying.append((str(name), kept.over(its, age_s)))
                continue
            try:
                await _drop(connection, str(name), str(state), bool(attached), bool(detaching))
                self._thinning.forget(str(name))
            except psycopg.Error as error:
                if connection.closed:
                    raise
                swept.left[str(name)] = first_line(error)
                if is_away(error):
                    # A lock that was not to be had: whoever reads this state would be waited for again.
                    waiting.add(state)
            else:
                swept.dropped.append(str(name))
        return staying

    async def _prove(self, connection: Connection, epoch: int) -> None:
        """A reign that is over must not drop by what it was told to keep."""
        try:
            await connection.execute(reign.PROVE_EPOCH, [epoch])
        except psycopg.Error as error:
            if error.sqlstate == _EPOCH_OVER:
                raise EpochLost(epoch) from error
            raise


async def _drop(connection: Connection, name: str, state: str, attached: bool, detaching: bool) -> None:
    """In two steps: out of sight of new readers first, gone when the old ones have ended."""
    names = {"parent": Identifier(f"task_done_{state}"), "partition": Identifier(name)}
    if attached:
        await connection.execute(SQL(partitions.FINALIZE if detaching else partitions.DETACH).format(**names))
    await connection.execute(SQL(partitions.DROP).format(**names))


async def _forget(connection: Connection, text: LiteralString, *parameters: float) -> int:
    forgotten = 0
    while True:
        deleted = (await connection.execute(text, [*parameters, KEYS_AT_ONCE])).rowcount
        forgotten += deleted
        if deleted < KEYS_AT_ONCE:
            return forgotten


async def _value(connection: Connection, text: Any, parameters: list[object]) -> object:
    row = await (await connection.execute(text, parameters)).fetchone()
    return None if row is None else row[0]
