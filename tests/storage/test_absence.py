"""Postgres goes away and comes back, on a server that only these tests use."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from asyncproc.core.decision import PageWanted
from asyncproc.errors import StorageUnavailable
from asyncproc.local.postgres import EmbeddedPostgres
from asyncproc.storage.connection import is_about_a_row, is_away
from asyncproc.storage.cycle import Committed, Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.migrate import migrate
from tests.storage.table import LANE, START, a_task, claim, live, until, waits_for_a_lock, write, write_again


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="asyncproc-test-"))
    server = EmbeddedPostgres(folder / "postgres")
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def url(server: EmbeddedPostgres) -> str:
    url = server.start()
    await migrate(url)
    return url


@pytest.fixture
async def reign(url: str) -> AsyncIterator[Storage]:
    storage = Storage(url, 1 << 20)
    await storage.take_over()
    yield storage
    await storage.close()


@pytest.mark.parametrize("how", ["stopped", "crashed"])
async def test_every_call_says_so_while_postgres_is_away_and_works_when_it_is_back(
    server: EmbeddedPostgres, url: str, reign: Storage, how: str
) -> None:
    inspector = Inspector(url, 2)
    await inspector.open()
    await inspector.ping()
    task = a_task()
    await write(reign, inserts=[task])
    if how == "stopped":
        server.stop()
    else:
        pid = server.pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        await until(lambda: _is_gone(server))

    calls = [
        lambda: write(reign, inserts=[a_task()]),
        lambda: write_again(reign, inserts=[a_task()]),
        lambda: reign.commit(None, [PageWanted("mail", LANE, START, 5)], False),
        lambda: reign.load({}, 60.0),
        reign.take_over,
        lambda: migrate(url),
        inspector.ping,
    ]
    for call in calls:
        with pytest.raises(StorageUnavailable):
            await call()

    server.start()
    assert await write_again(reign, claims=[claim(task)]) == Committed()
    assert live(url)[task.id]["state"] == "running"
    await until(lambda: _answers(inspector), seconds=3.0)
    await inspector.close()


async def test_a_commit_that_postgres_dies_under_is_unknown_and_then_replayed(
    server: EmbeddedPostgres, url: str, reign: Storage
) -> None:
    task = a_task()
    await write(reign, inserts=[task])
    holder = psycopg.connect(url)
    holder.execute("SELECT 1 FROM asyncproc.task_live FOR UPDATE")
    committing = asyncio.create_task(write(reign, claims=[claim(task)]))
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as bystander:
        await until(lambda: waits_for_a_lock(bystander, 1))
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    with pytest.raises(StorageUnavailable):
        await committing
    await until(lambda: _is_gone(server))
    holder.close()

    server.start()
    assert await write_again(reign, claims=[claim(task)]) == Committed()


async def test_a_connection_that_was_closed_under_it_is_opened_anew(reign: Storage) -> None:
    connection = reign._connection
    assert connection is not None
    await connection.close()

    assert await write(reign, inserts=[a_task()]) == Committed()


async def test_an_idle_connection_that_was_ended_is_noticed_and_opened_anew(reign: Storage, url: str) -> None:
    with psycopg.connect(url) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asyncproc-queue'"
        )

    with pytest.raises(StorageUnavailable):
        await write(reign, inserts=[a_task()])
    assert await write(reign, inserts=[a_task()]) == Committed()


AWAY = [
    psycopg.OperationalError("server closed the connection unexpectedly"),
    psycopg.InterfaceError("the connection is closed"),
    psycopg.errors.ConnectionTimeout("connection timeout expired"),
    psycopg.errors.AdminShutdown(),
    psycopg.errors.CannotConnectNow(),
    psycopg.errors.CrashShutdown(),
    psycopg.errors.DiskFull(),
    psycopg.errors.TooManyConnections(),
    psycopg.errors.DeadlockDetected(),
    psycopg.errors.LockNotAvailable(),
    psycopg.errors.QueryCanceled(),
    psycopg.errors.IdleInTransactionSessionTimeout(),
    psycopg.errors.ReadOnlySqlTransaction(),
]
OURS = [psycopg.errors.UndefinedTable(), psycopg.errors.SyntaxError(), psycopg.ProgrammingError("no results")]
A_ROWS = [
    psycopg.errors.InvalidTextRepresentation(),
    psycopg.errors.UniqueViolation(),
    psycopg.errors.StatementTooComplex(),
]


@pytest.mark.parametrize("error", [*AWAY, *OURS, *A_ROWS], ids=lambda error: type(error).__name__)
def test_an_error_is_the_connections_or_a_rows_or_ours(error: psycopg.Error) -> None:
    assert (is_away(error), is_about_a_row(error)) == (error in AWAY, error in A_ROWS)


async def _is_gone(server: EmbeddedPostgres) -> bool:
    return server.pid() is None


async def _answers(inspector: Inspector) -> bool:
    try:
        await inspector.ping()
    except StorageUnavailable:
        return False
    return True
