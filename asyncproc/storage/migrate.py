"""Numbered SQL files, applied once each, in order, under a lock."""

from importlib import resources
from typing import Final

from psycopg import AsyncConnection

from asyncproc.errors import SchemaTooNew
from asyncproc.storage.connection import hardened

_LOCK_KEY: Final = 0x6D696772617465


async def migrate(conninfo: str) -> list[int]:
    """Bring the schema up to this release; returns the versions applied now.

    Safe to call from many processes at once: one works, the others wait. Raises `SchemaTooNew` where a newer release
    was here before.
    """
    known = _files()
    connection = await AsyncConnection.connect(
        hardened(conninfo, "asyncproc-migrate", "-c timezone=UTC"), autocommit=True
    )
    async with connection:
        await connection.execute("SET lock_timeout = '30s'")
        await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK_KEY])
        await connection.execute("CREATE SCHEMA IF NOT EXISTS asyncproc")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS asyncproc.migration ("
            " version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        cursor = await connection.execute("SELECT version FROM asyncproc.migration")
        applied = {row[0] for row in await cursor.fetchall()}
        if applied and max(applied) > max(known):
            raise SchemaTooNew(max(applied), max(known))
        missing = sorted(known.keys() - applied)
        for version in missing:
            async with connection.transaction():
                await connection.execute(known[version].encode())
                await connection.execute("INSERT INTO asyncproc.migration (version) VALUES (%s)", [version])
        return missing


def _files() -> dict[int, str]:
    folder = resources.files("asyncproc.storage.migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {int(name.split("_")[0]): (folder / name).read_text() for name in names}
