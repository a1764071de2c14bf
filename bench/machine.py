"""What the measurements run on: a Postgres and a Ray of their own, a system, and what its processes use."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import ray
from ray import serve

from asyncproc.local.haproxy import haproxy_environment
from asyncproc.local.postgres import EmbeddedPostgres
from bench.client import free_port
from tests.deployed import System, deployed, pid_of, settings_of

WORKERS: Final = 2
PARKED: Final = "parked"
"""A queue that no worker serves: what is enqueued there stays."""
_numbers = count(1)


class Machine:
    """One Postgres and one Ray for the runs of a row; a fresh database and namespace for each system."""

    def __init__(self, postgres: str, start_dir: Path, serve_url: str | None = None, scale: float = 1.0) -> None:
        """`scale` makes every row smaller, to see that it works; its figures then mean nothing."""
        shutil.copy(Path(__file__).parent / "tasks.py", start_dir)
        self._postgres = postgres
        self._scale = scale
        self.start_dir = start_dir
        self._serve_url = serve_url

    def serve_url(self) -> str:
        """The URL of Ray Serve, started when first asked for."""
        if self._serve_url is None:
            port = free_port()
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            self._serve_url = f"http://127.0.0.1:{port}"
        return self._serve_url

    def scaled(self, number: int) -> int:
        return max(1, int(number * self._scale))

    def postgres_version(self) -> str:
        with psycopg.connect(self._postgres) as connection:
            return str(connection.info.server_version // 10_000) + f".{connection.info.server_version % 10_000}"

    def new_database(self) -> str:
        name = f"bench_{next(_numbers)}"
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return psycopg.conninfo.make_conninfo(self._postgres, dbname=name)

    def settings(self, database: str, **sections: Any) -> Any:
        pools = {PARKED: {"queues": [PARKED], "workers": 0}, **sections.pop("pools", {})}
        queue = {"workerPoolSize": WORKERS, **sections.pop("queue", {})}
        settings = settings_of(database, f"bench-{next(_numbers)}", pools=pools, queue=queue, **sections)
        return settings.model_copy(update={"tasks": ["tasks"]})

    @contextmanager
    def system(self, **sections: Any) -> Iterator[System]:
        with deployed(self.settings(self.new_database(), **sections), self.start_dir) as system:
            yield system


@contextmanager
def machine(*, bare: bool = False, scale: float = 1.0) -> Iterator[Machine]:
    """`bare` is for what starts its own Postgres and Ray, and should find none beside them."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ap-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        start_dir = folder / "start"
        start_dir.mkdir()
        yield Machine("" if bare else _started(folder, stack), start_dir, scale=scale)


def _started(folder: Path, stack: ExitStack) -> str:
    """A Postgres and a Ray, ended with the stack; returns where the Postgres is."""
    postgres = EmbeddedPostgres(folder / "postgres")
    url = postgres.start()
    stack.callback(postgres.stop)
    os.environ.update(haproxy_environment(stack))
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 * 1024 * 1024,
        log_to_driver=False,
        _temp_dir=str(folder / "ray"),
    )
    stack.callback(ray.shutdown)
    return url


def actors(system: System) -> list[psutil.Process]:
    """The processes of the QueueActor and of the workers, in this order."""
    return [psutil.Process(pid_of(actor)) for actor in (system.queue(), *system.workers().values())]


def postgres_of(system: System) -> tuple[int, list[psutil.Process]]:
    """The process id of the backend that writes for the QueueActor, and all processes of its Postgres."""
    writer = query(
        system,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'asyncproc-queue' AND datname = current_database()",
    )[0]
    server = psutil.Process(writer).parent()
    assert server is not None
    return writer, [server, *server.children()]


def pss_mb(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 1e6


def query(system: System, text: str, *parameters: object) -> Any:
    """The one row that a statement returns."""
    with psycopg.connect(system.deployment.conninfo, autocommit=True) as connection:
        return connection.execute(text.encode(), parameters).fetchone()
