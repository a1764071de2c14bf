"""The disk of a Postgres on this machine, watched so that it is noticed before it is full."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
from psycopg import AsyncConnection

from asyncproc.errors import DiskNearlyFull
from asyncproc.storage.connection import hardened

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """What is left there for others than root."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Disk:
    """Says whether there is room for new tasks.

    A Postgres elsewhere does not tell how full its disk is: there is always room then, until it refuses a write itself.
    """

    def __init__(self, conninfo: str, min_free_bytes: int, free: FreeBytes = free_bytes) -> None:
        self._conninfo = conninfo
        self._min_free_bytes = min_free_bytes
        self._free = free
        self.shortage: DiskNearlyFull | None = None

    def admit(self) -> None:
        """Raises `DiskNearlyFull` where new tasks should not be taken."""
        if self.shortage is not None:
            raise DiskNearlyFull(self.shortage.free_bytes, self.shortage.min_bytes)

    async def watch(self) -> None:
        """Look every few seconds; never returns."""
        folder = await self._find()
        while folder is not None:
            await self.look(folder)
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.Event().wait()

    async def look(self, folder: Path) -> None:
        try:
            # Off the loop: a network file system that is away answers nothing for minutes.
            free = await asyncio.to_thread(self._free, folder)
        except OSError as error:
            log.warning("how full the disk of Postgres is cannot be seen: %s", error)
            return
        was_short = self.shortage is not None
        self.shortage = DiskNearlyFull(free, self._min_free_bytes) if free < self._min_free_bytes else None
        if self.shortage is not None and not was_short:
            log.warning("%s", self.shortage)
        if self.shortage is None and was_short:
            log.info("the disk of Postgres has %d bytes free again: new tasks are taken", free)

    async def _find(self) -> Path | None:
        while True:
            try:
                return await data_directory(self._conninfo)
            except psycopg.Error:
                # It is away, which the cycle says.
                await asyncio.sleep(LOOK_EVERY_S)


async def data_directory(conninfo: str) -> Path | None:
    """Where the server keeps its data; None where that is another machine, or hidden from this role.

    Raises `psycopg.Error` where Postgres is away.
    """
    connection = await AsyncConnection.connect(hardened(conninfo, "asyncproc-disk", ""), autocommit=True)
    async with connection:
        if not connection.info.host.startswith("/"):
            return None
        try:
            row = await (await connection.execute("SHOW data_directory")).fetchone()
        except psycopg.errors.InsufficientPrivilege:
            return None
    folder = Path(str(row[0])) if row is not None else None
    # A container that was handed the socket does not see the directory.
    return folder if folder is not None and await asyncio.to_thread(os.path.isdir, folder) else None
