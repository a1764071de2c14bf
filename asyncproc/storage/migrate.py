"""Numbered SQL files, applied once each, in order, under a lock."""

from importlib import resources
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from asyncproc import failpoints
from asyncproc.errors import SchemaTooNew, StorageUnavailable
from asyncproc.storage.connection import first_line, hardened, is_away

_LOCK_KEY: Final = 0x6D696772617465
_VERSIONS: Final = "SELECT version FROM asyncproc.migration"


async def migrate(conninfo: str) -> list[int]:
    """Bring the schema up to this release; returns the versions applied now.

    Safe to call from many processes at once: one works, the others wait. Raises `SchemaTooNew` where a newer release
    was here before, and `StorageUnavailable` where Postgres does not answer.
    """
    try:
        connection = await AsyncConnection.connect(
            hardened(conninfo, "asyncproc-migrate", "-c timezone=UTC"), autocommit=True
        )
        async with connection:
            return await _apply(connection, _files())
    except psycopg.Error as error:
        raise (StorageUnavailable(first_line(error)) if is_away(error) else error) from error


async def _apply(connection: AsyncConnection[tuple[Any, ...]], known: dict[int, str]) -> list[int]:
    # Looked at before anything is locked or made: a role that may not change the schema can start an up-to-date one.
    if not await _missing(connection, known):
        return []
    failpoints.hit("migrate.before")
    await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK_KEY])
    # Whoever waits for a table makes all others wait behind it, the cycle of a release that still reigns included:
    # rather give up soon and come again.
    await connection.execute("SET lock_timeout = '2s'")
    await connection.execute("CREATE SCHEMA IF NOT EXISTS asyncproc")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS asyncproc.migration ("
        " version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    missing = await _missing(connection, known)
    for version in missing:
        async with connection.transaction():
            await connection.execute(known[version].encode())
            failpoints.hit("migrate.mid")
            await connection.execute("INSERT INTO asyncproc.migration (version) VALUES (%s)", [version])
    failpoints.hit("migrate.after")
    return missing


async def _missing(connection: AsyncConnection[tuple[Any, ...]], known: dict[int, str]) -> list[int]:
    found = await (await connection.execute("SELECT to_regclass('asyncproc.migration')")).fetchone()
    if found is None or found[0] is None:
        return sorted(known)
    applied = {row[0] for row in await (await connection.execute(_VERSIONS)).fetchall()}
    if applied and max(applied) > max(known):
        raise SchemaTooNew(max(applied), max(known))
    return sorted(known.keys() - applied)


def _files() -> dict[int, str]:
    folder = resources.files("asyncproc.storage.migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {int(name.split("_")[0]): (folder / name).read_text() for name in names}
