"""What many tests share: one Postgres for the whole run, a database of its own for each test."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from asyncproc.local.postgres import EmbeddedPostgres
from asyncproc.storage.migrate import migrate

_TEMPLATE: Final = "migrated"
_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server that lives as long as the run of tests."""
    # Not below pytest's own directory, which is closed to the user that Postgres runs as where root runs the tests.
    folder = Path(tempfile.mkdtemp(prefix="asyncproc-test-"))
    server = EmbeddedPostgres(folder / "postgres")
    try:
        url = server.start()
        # The machine does not crash under the tests, and most of their time went into the log of whole databases.
        for setting in ("fsync", "wal_compression"):
            _execute(url, "ALTER SYSTEM SET {} = off", setting)
        _execute(url, "SELECT pg_reload_conf()")
        yield url
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def migrated_template(postgres: str) -> str:
    _execute(postgres, "CREATE DATABASE {}", _TEMPLATE)
    asyncio.run(migrate(make_conninfo(postgres, dbname=_TEMPLATE)))
    return _TEMPLATE


@pytest.fixture
def database(postgres: str, migrated_template: str) -> Iterator[str]:
    """The connection string of a migrated database that is this test's alone."""
    name = f"test_{next(_numbers)}"
    _execute(postgres, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, migrated_template)
    yield make_conninfo(postgres, dbname=name)
    _execute(postgres, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """The connection string of a database in which nobody has migrated anything."""
    name = f"empty_{next(_numbers)}"
    _execute(postgres, "CREATE DATABASE {}", name)
    yield make_conninfo(postgres, dbname=name)
    _execute(postgres, "DROP DATABASE {} WITH (FORCE)", name)


def _execute(conninfo: str, text: LiteralString, *names: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL(text).format(*(sql.Identifier(name) for name in names)))
