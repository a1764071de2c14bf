"""Looking at, and ending, what `asyncproc up` runs in a directory."""

import signal
from pathlib import Path
from typing import Final

import httpx
import psutil

from asyncproc.errors import AsyncprocError
from asyncproc.local import note

STOP_S: Final = 180.0


class NotStopped(AsyncprocError):
    """The system was told to stop and still runs."""


def stop(start_dir: Path) -> bool:
    """End the system of this directory and wait for it; False where none runs."""
    running = note.read(start_dir)
    if running is None:
        return False
    process = psutil.Process(running.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except psutil.TimeoutExpired:
        raise NotStopped(f"process {running.pid} still runs after {STOP_S:g} s: look at its terminal") from None
    return True


def state(start_dir: Path) -> tuple[bool, list[str]]:
    """Whether all of it answers, and lines that say so."""
    running = note.read(start_dir)
    if running is None:
        return False, ["nothing runs in this directory: start it with `asyncproc up`"]
    lines = [f"process {running.pid}, API {running.url}"]
    try:
        response = httpx.get(f"{running.url}/healthz", timeout=5)
        body = response.json()
    except (httpx.HTTPError, ValueError) as error:
        return False, [*lines, f"the API does not answer: {type(error).__name__}"]
    lines += [f"{key}: {value}" for key, value in body.items()]
    return response.status_code == 200, lines
