import asyncio
import re

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
