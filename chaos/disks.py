"""A disk that is full, and one that is slow."""

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import psycopg

from chaos.scene import PATIENCE_S, Unfit
from chaos.system import System, until

SMALL_BYTES: Final = 1536 * 1024 * 1024
_CHUNK: Final = 1024 * 1024


@contextmanager
def full(system: System) -> Iterator[None]:
    """Fill the disk of Postgres; entered once Postgres has met with it. Raises `Unfit` where others live on it."""
    disk = system.postgres_dir.parent
    if not disk.is_mount():
        raise Unfit("Postgres has no disk of its own that could be filled: it takes the right to mount one")
    ballast = disk / "ballast"
    try:
        until(lambda: _fill(ballast) and _has_no_room(system), PATIENCE_S, "Postgres to meet with a full disk")
        yield
    finally:
        ballast.unlink()


def _has_no_room(system: System) -> bool:
    """By a write of our own: the log of Postgres is on the same disk, and has no room for its complaints."""
    try:
        system.query("CREATE TEMP TABLE probe AS SELECT repeat(n::text, 4000) FROM generate_series(1, 2000) n")
    except psycopg.Error:
        return True
    return False


def _fill(ballast: Path) -> bool:
    """Whatever Postgres gave back meanwhile is taken too."""
    try:
        with ballast.open("ab", buffering=0) as file:
            while file.write(bytes(_CHUNK)):
                pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    return True


def revive(system: System) -> None:
    """A Postgres whose log of writes met with a full disk has ended itself, or is recovering."""
    until(lambda: system.postgres.pid() is None or _answers(system), PATIENCE_S, "Postgres to make up its mind")
    system.postgres.start()
    until(lambda: _answers(system), PATIENCE_S, "Postgres after its disk was full")


def _answers(system: System) -> bool:
    try:
        return bool(system.query("SELECT 1"))
    except psycopg.Error:
        return False


@contextmanager
def slow_fsync(system: System, log: Path, seconds: float) -> Iterator[None]:
    """Hold up each fsync of Postgres; entered once one was. Raises `Unfit` without strace, or the right to use it."""
    strace = shutil.which("strace")
    if strace is None:
        raise Unfit("strace is not installed: nothing else slows an fsync down")
    root = psutil.Process(system.postgres.pid())
    pids = [root.pid, *(process.pid for process in root.children(recursive=True))]
    delay = f"inject=fdatasync,fsync:delay_enter={int(seconds * 1e6)}"
    attach = [argument for pid in pids for argument in ("-p", str(pid))]
    log.unlink(missing_ok=True)
    tracer = subprocess.Popen(
        [strace, "-f", "-qq", "-e", "trace=fdatasync,fsync", "-e", delay, "-o", str(log), *attach],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def has_delayed() -> bool:
        if tracer.poll() is not None:
            raise Unfit("strace may not attach to Postgres on this machine")
        return log.exists() and "(DELAYED)" in log.read_text(errors="replace")

    try:
        until(has_delayed, PATIENCE_S, "a delayed fsync")
        yield
    finally:
        if tracer.poll() is None:
            os.kill(tracer.pid, signal.SIGINT)
        tracer.wait(PATIENCE_S)
