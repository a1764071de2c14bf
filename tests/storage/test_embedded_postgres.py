import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from asyncproc.errors import ConfigError
from asyncproc.local.postgres import EmbeddedPostgres

START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from asyncproc.local.postgres import EmbeddedPostgres
print(EmbeddedPostgres(Path(sys.argv[1])).start(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="asyncproc-test-"))
    yield folder
    shutil.rmtree(folder)


def test_the_server_outlives_whoever_started_it_until_it_is_stopped(folder: Path) -> None:
    starter = subprocess.run(
        [sys.executable, "-c", START_AND_DIE, str(folder / "data")], stdout=subprocess.PIPE, text=True, check=False
    )
    assert starter.returncode == -signal.SIGKILL

    server = EmbeddedPostgres(folder / "data")
    pid = server.pid()
    assert pid is not None
    assert (os.getsid(pid), os.getpgid(pid)) == (pid, pid)
    assert server.start() == starter.stdout.strip()
    assert server.pid() == pid
    assert _value(server.start(), "SELECT 1") == 1
    closed_to_others = [folder / "data", folder / "data" / ".s.PGSQL.5432"]
    assert [path.stat().st_mode & 0o077 for path in closed_to_others] == [0, 0]

    server.stop()
    assert server.pid() is None
    server.stop()


def test_what_was_written_is_there_after_a_stop_and_after_a_crash(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "data")
    with psycopg.connect(server.start()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    server.stop()
    assert _value(server.start(), "SELECT n FROM kept") == 1

    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while server.pid() is not None:
        pass

    assert _value(server.start(), "SELECT n FROM kept") == 1
    server.stop()


@pytest.mark.parametrize("name", ["a b", "it's " + "x" * 100])
def test_any_path_will_do(folder: Path, name: str) -> None:
    server = EmbeddedPostgres(folder / name / "data")
    try:
        assert _value(server.start(), "SHOW listen_addresses") == ""
        assert _value(server.start(), "SHOW fsync") == "on"
    finally:
        server.stop()
        for left in Path("/tmp").glob("asyncproc-*-" + "?" * 12):
            if not any(left.iterdir()):
                left.rmdir()


def test_a_server_is_found_by_every_path_that_leads_to_it(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder / "real")
    server = EmbeddedPostgres(folder / "real" / "data")
    server.start()

    other = EmbeddedPostgres(folder / "link" / "data")
    assert other.pid() == server.pid()
    other.stop()
    assert server.pid() is None


def test_a_number_that_now_belongs_to_another_process_is_not_the_server(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "data")
    server.start()
    pid_file = folder / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert server.pid() is None

    assert _value(server.start(), "SELECT 1") == 1
    server.stop()


def test_without_the_wheel_the_error_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])

    with pytest.raises(ConfigError, match=r"asyncproc\[local\]"):
        EmbeddedPostgres(folder / "data").start()


def _value(url: str, text: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(text.encode()).fetchone()
    assert row is not None
    return row[0]
