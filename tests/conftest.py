"""What many tests share: one Postgres for the whole run, a database of its own for each test."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from asyncproc.local.postgres import EmbeddedPostgres
from asyncproc.storage.migrate import migrate

_TEMPLATE: Final = "migrated"
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024
_numbers = count()

# Ray reads these when it is imported, which the other conftest files do. The token is this run's own.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = token_hex(32)


def pytest_configure(config: pytest.Config) -> None:
    # Ray Serve declares its settings in a way that pydantic has deprecated.
    config.addinivalue_line(
        "filterwarnings",
        r"ignore:Using extra keyword arguments on `Field`:pydantic.warnings.PydanticDeprecatedSince20:ray\.serve",
    )


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


@pytest.fixture(scope="session")
def databases(postgres: str, migrated_template: str) -> Callable[[], AbstractContextManager[str]]:
    """Makes migrated databases that live longer than one test."""

    @contextmanager
    def database() -> Iterator[str]:
        name = f"shared_{next(_numbers)}"
        _execute(postgres, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, migrated_template)
        yield make_conninfo(postgres, dbname=name)
        _execute(postgres, "DROP DATABASE {} WITH (FORCE)", name)

    return database


@pytest.fixture
def standby(postgres: str) -> Iterator[Callable[[str], None]]:
    """Name the standby that every COMMIT waits for after it is carried out: one that never comes keeps the answer."""

    def name(standby: str) -> None:
        with psycopg.connect(postgres, autocommit=True) as connection:
            text = sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(sql.Literal(standby))
            connection.execute(text)
            connection.execute("SELECT pg_reload_conf()")
        # A new backend has it from the postmaster, which has told the checkpointer by then; that one decides who waits.
        while _value(postgres, "SHOW synchronous_standby_names") != standby:
            pass
        _execute(postgres, "CHECKPOINT")

    yield name
    name("")


@pytest.fixture
def namespace() -> str:
    """Where one test's actors live."""
    return f"test-{next(_numbers)}"


@pytest.fixture(scope="session")
def start_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to start from, with the task modules `sample_tasks` and `sample_models`."""
    folder = tmp_path_factory.mktemp("start")
    for name in ("sample_tasks.py", "sample_models.py"):
        shutil.copy(Path(__file__).parent / "actors" / name, folder)
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for the whole run, joined to none that may be running on this machine."""
    import ray

    from asyncproc.local.haproxy import haproxy_environment

    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in haproxy_environment(stack).items():
            environment.setenv(name, value)
        # Short: the paths of Ray's unix sockets are below it, and have at most 107 characters.
        folder = tempfile.mkdtemp(prefix="ap-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(ray.shutdown)
        ray.init(
            address="local",
            num_cpus=4,
            num_gpus=2,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield


@pytest.fixture(scope="session")
def serve_url(ray_cluster: None) -> Iterator[str]:
    """The URL of a Ray Serve behind its HAProxy, without an application yet."""
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray does not annotate it


def _value(conninfo: str, text: LiteralString) -> object:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(text).fetchone()
        return None if row is None else row[0]


def _execute(conninfo: str, text: LiteralString, *names: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL(text).format(*(sql.Identifier(name) for name in names)))
