"""Requests that callers committed in transactions of their own: who rings, what waits, and what cannot be kept."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from asyncproc.core.task import TaskId
from asyncproc.storage.arrays import texts, uuids
from asyncproc.storage.connection import Connection, Fence, first_line, hardened
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.statements import requests

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
_AT_HAND_S: Final = 1.0
"""How long is waited for a notification when something is there to be read, which may be something else."""
_OPTIONS: Final = "-c default_transaction_read_only=on -c timezone=UTC"


class Request(NamedTuple):
    """A row; None is what was left to others, 0 no instant."""

    id: TaskId
    payload: bytes
    type: str
    queue: str | None
    priority: int | None
    backoff_s: float | None
    timeout_s: float | None
    soft_timeout_s: float | None
    concurrency_key: str
    fairness_key: str
    created_by: str
    affinity_key: str
    resources: str | None
    ready_at: float
    start_by: float
    deadline: float
    depends_on: list[UUID] | None
    on_parent_failure: str | None


class Bell:
    """Rung by every commit that leaves a request behind, on a connection of its own.

    It may miss some, and all of them while it is cut off: whoever waits for it looks for himself now and then.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._rung = asyncio.Event()

    async def listen(self) -> None:
        """Until cancelled; a connection that breaks is made anew."""
        wait_s, said = _FIRST_RETRY_S, ""
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute(requests.LISTEN)
                    # What was committed while nobody listened.
                    self._rung.set()
                    wait_s, said = _FIRST_RETRY_S, ""
                    while True:
                        # Left to itself psycopg looks ten times a second, which is a third of what idling costs.
                        await _readable(connection.fileno())
                        async for _ in connection.notifies(timeout=_AT_HAND_S, stop_after=1):
                            self._rung.set()
            except psycopg.Error as error:
                if first_line(error) != said:
                    said = first_line(error)
                    log.warning("notifications of new requests are not heard: %s", said)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_RETRY_S)

    async def wait(self, seconds: float) -> None:
        """Until it rings, or has rung since the last time; no longer than so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()

    async def _connect(self) -> AsyncConnection[tuple[object, ...]]:
        return await AsyncConnection.connect(hardened(self._conninfo, "asyncproc-listen", _OPTIONS), autocommit=True)


async def _readable(fileno: int) -> None:
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(fileno, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(fileno)


async def waiting(inspector: Inspector, most: int, most_bytes: int) -> list[Request]:
    """Those that were committed before this was asked, by id. Raises `StorageUnavailable`."""
    return [Request(*row) for row in await inspector.requested(most, most_bytes)]


async def know_types(connection: Connection, fence: Fence, queues: Mapping[str, str], max_payload_bytes: int) -> None:
    """From now on these types can be asked for, and no others; each with the queue that its tasks go to."""
    async with connection.transaction():
        await fence(connection)
        await connection.execute(requests.FORGET_TYPES, [texts(queues)])
        columns = [texts(queues), texts(queues.values()), max_payload_bytes]
        await connection.execute(requests.KNOW_TYPES, columns)


async def refuse(connection: Connection, fence: Fence, causes: Mapping[TaskId, str]) -> None:
    """Put requests aside of which Postgres keeps no task."""
    async with connection.transaction():
        await fence(connection)
        await connection.execute(requests.REFUSE, [uuids(causes), texts(causes.values())])
