import asyncio
import re

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from asyncproc.core.states import FINAL, State
from asyncproc.errors import SchemaTooNew, StorageUnavailable
from asyncproc.storage import migrate as migrations
from asyncproc.storage.migrate import migrate
from tests.storage.table import query

VERSIONS = sorted(migrations._files())


async def test_an_empty_database_gets_every_migration(empty_database: str) -> None:
    assert await migrate(empty_database) == VERSIONS
    assert query(empty_database, "SELECT version FROM asyncproc.migration ORDER BY 1") == [
        (version,) for version in VERSIONS
    ]


async def _first_release(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await migrations._apply(connection, {1: migrations._files()[1]})


async def test_what_the_first_release_writes_is_taken_by_the_schema_of_this_one(empty_database: str) -> None:
    await _first_release(empty_database)
    columns = query(
        empty_database,
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns"
        " WHERE table_schema = 'asyncproc' AND table_name = 'task_live'",
    )[0][0]
    assert await migrate(empty_database) == VERSIONS[1:]

    values = {"priority": "0", "lease": "0", "attempt": "0", "losses": "0", "state": "'queued'", "payload": "'{}'"}
    values |= dict.fromkeys(("ready_at", "created_at"), "now()") | {"id": "uuidv7()", "errors": "'{}'"}
    values |= dict.fromkeys(("max_attempts", "backoff_s", "backoff_factor", "backoff_cap_s", "backoff_jitter"), "1")
    values |= dict.fromkeys(("type", "queue", "created_by"), "'x'")
    row = ", ".join(values.get(name, "NULL") for name in columns.split(", "))
    query(empty_database, f"INSERT INTO asyncproc.task_live ({columns}) SELECT {row}")
    assert query(empty_database, "SELECT timeout_s, soft_timeout_s FROM asyncproc.task_live") == [(0.0, 0.0)]


async def test_a_migration_gives_up_soon_where_a_table_is_in_use(empty_database: str) -> None:
    await _first_release(empty_database)
    with psycopg.connect(empty_database) as reader:
        reader.execute("SELECT FROM asyncproc.task_live")
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await migrate(empty_database)

    migrated = {version for (version,) in query(empty_database, "SELECT version FROM asyncproc.migration")}
    assert migrated.isdisjoint({3})
    assert await migrate(empty_database) == sorted({*VERSIONS} - migrated)


def test_migrations_are_numbered_without_a_gap() -> None:
    assert list(range(1, len(VERSIONS) + 1)) == VERSIONS


async def test_a_second_migration_changes_nothing(database: str) -> None:
    assert await migrate(database) == []


async def test_of_many_at_once_one_migrates_and_the_others_wait(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database) for _ in range(6)))

    assert sorted(applied) == [[], [], [], [], [], VERSIONS]


async def test_a_schema_of_a_newer_release_is_refused(database: str) -> None:
    query(database, "INSERT INTO asyncproc.migration (version) VALUES (99)")

    with pytest.raises(SchemaTooNew) as refusal:
        await migrate(database)

    assert (refusal.value.found, refusal.value.known) == (99, VERSIONS[-1])


async def test_a_role_without_rights_on_the_schema_starts_where_nothing_is_to_be_done(database: str) -> None:
    query(database, "CREATE ROLE clerk LOGIN")
    query(database, "GRANT USAGE ON SCHEMA asyncproc TO clerk; GRANT SELECT ON asyncproc.migration TO clerk")
    try:
        assert await migrate(make_conninfo(database, user="clerk")) == []
    finally:
        query(database, "DROP OWNED BY clerk; DROP ROLE clerk")


async def test_an_absent_postgres_is_said_to_be_absent(database: str) -> None:
    with pytest.raises(StorageUnavailable):
        await migrate(make_conninfo(database, host="/nonexistent"))


@pytest.mark.parametrize(("table", "states"), [("task_live", set(State) - FINAL), ("task_done", set(FINAL))])
def test_the_tables_allow_the_declared_states_and_no_others(database: str, table: str, states: set[State]) -> None:
    ((definition,),) = query(
        database,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'c' AND conrelid = %s::regclass AND conname LIKE '%%state%%'",
        f"asyncproc.{table}",
    )

    assert set(re.findall(r"'(\w+)'", definition)) == states
