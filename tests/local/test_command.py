"""The `asyncproc` command as it is typed: exit codes, and one clear line where something is wrong."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from asyncproc.local import note
from tests.storage.table import query


class Done(NamedTuple):
    code: int
    out: str
    err: list[str]


class Shell:
    """A directory in which the command is run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def configure(self, text: str) -> None:
        (self.directory / "asyncproc.yaml").write_text(text)

    def run(self, *arguments: str, **environ: str) -> Done:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCPROC_")}
        done = subprocess.run(
            [sys.executable, "-m", "asyncproc", *arguments],
            cwd=self.directory,
            env={**inherited, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.splitlines())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize("command", ["up", "migrate", "config"])
def test_a_wrong_configuration_is_one_line_and_exit_2(shell: Shell, command: str) -> None:
    shell.configure("queue: {workerPoolSize: -1}")

    done = shell.run(command)

    assert (done.code, done.out) == (2, "")
    assert done.err == ["configuration: queue.workerPoolSize is -1: input should be greater than or equal to 0"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tasks: [no_such_module]", "task module 'no_such_module' cannot be imported: ModuleNotFoundError"),
        ("queue: {a: b", "is not YAML"),
    ],
)
def test_a_system_that_cannot_start_says_why_and_exits_2(shell: Shell, postgres: str, text: str, line: str) -> None:
    shell.configure(text)

    done = shell.run("up", ASYNCPROC_STORAGE_URL=postgres)

    assert done.code == 2
    assert len(done.err) == 1
    assert line in done.err[0]


def test_a_file_that_is_not_there_is_said(shell: Shell) -> None:
    done = shell.run("config", "--config", "other.yaml")

    assert (done.code, done.err) == (2, ["configuration: other.yaml: there is no such file"])


def test_an_unknown_command_or_option_is_exit_2(shell: Shell) -> None:
    assert shell.run("upp").code == 2
    assert shell.run("up", "--fast").code == 2


def test_the_configuration_in_force_is_shown_without_secrets(shell: Shell) -> None:
    shell.configure("storage: {url: 'postgresql://me:SECRET@host/db'}\nsmtp: {host: mail, password: SECRET}")

    done = shell.run("config", ASYNCPROC_QUEUE_WORKER_POOL_SIZE="7")

    assert (done.code, done.err) == (0, [])
    values = yaml.safe_load(done.out)
    assert values["queue"]["workerPoolSize"] == 7
    assert values["smtp"]["host"] == "mail"
    assert "SECRET" not in done.out


def test_where_nothing_runs_that_is_said(shell: Shell) -> None:
    status, down = shell.run("status"), shell.run("down")

    assert (status.code, status.out) == (1, "nothing runs in this directory: start it with `asyncproc up`\n")
    assert (down.code, down.out) == (0, "nothing runs here\n")


def test_a_system_that_does_not_answer_is_not_healthy(shell: Shell) -> None:
    (shell.directory / note.HOME).mkdir()
    note.write(shell.directory, "http://127.0.0.1:1")

    done = shell.run("status")

    assert done.code == 1
    assert done.out.splitlines() == [
        f"process {os.getpid()}, API http://127.0.0.1:1",
        "the API does not answer: ConnectError",
    ]


def test_a_second_system_in_one_directory_is_refused(shell: Shell) -> None:
    (shell.directory / note.HOME).mkdir()
    note.write(shell.directory, "http://127.0.0.1:1")

    done = shell.run("up")

    assert done.code == 1
    assert done.err == [f"process {os.getpid()} runs it already: `asyncproc down` stops it"]


def test_migrate_brings_an_empty_database_up_to_date_once(shell: Shell, empty_database: str) -> None:
    first = shell.run("migrate", ASYNCPROC_STORAGE_URL=empty_database)
    second = shell.run("migrate", ASYNCPROC_STORAGE_URL=empty_database)

    assert (first.code, second.code) == (0, 0)
    assert first.out.startswith("applied migrations 1")
    assert second.out == "the schema is up to date\n"
    assert query(empty_database, "SELECT count(*) FROM asyncproc.task_live") == [(0,)]


def test_migrate_needs_a_database(shell: Shell) -> None:
    done = shell.run("migrate")

    assert done.code == 2
    assert done.err == [
        "configuration: storage.url is not set: `asyncproc migrate` needs a database; `asyncproc up` brings its own"
    ]


def test_a_database_that_does_not_answer_is_one_line_and_exit_1(shell: Shell) -> None:
    done = shell.run("migrate", ASYNCPROC_STORAGE_URL="postgresql://me:SECRET@127.0.0.1:1/db")

    assert done.code == 1
    assert len(done.err) == 1
    assert done.err[0].startswith("Postgres does not answer (")
    assert "SECRET" not in done.err[0]


def test_where_the_database_is_can_be_asked(shell: Shell) -> None:
    done = shell.run("database-url")
    assert (done.code, done.out) == (2, "")
    assert done.err == [
        "configuration: storage.url is not set, and no Postgres of ours runs in this directory: start it with"
        " `asyncproc up`"
    ]
    url = "postgresql://shop:secret@db/shop"
    assert shell.run("database-url", ASYNCPROC_STORAGE_URL=url) == Done(0, f"{url}\n", [])
