"""The tour in the documentation, line by line: what is printed there is what comes out."""

import doctest
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.eventually import PATIENCE_S

TOUR: Final = Path(__file__).parents[2] / "docs" / "tour.md"
MARK: Final = "@@@ end of what step printed @@@"


def steps(text: str) -> list[tuple[str, str]]:
    """Commands and what they print."""
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(([line[2:]], []))
            elif line == ">" or line.startswith("> "):
                found[-1][0].append(line[2:])
            else:
                found[-1][1].append(line)
    return [("\n".join(command), "\n".join(printed)) for command, printed in found]


def run(commands: list[str], directory: Path, environment: dict[str, str]) -> list[str]:
    """What each prints, in one shell."""
    script = "".join(f"{command}\necho '{MARK}'\n" for command in commands)
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=6 * PATIENCE_S,
        check=False,
    )
    return [part.strip("\n") for part in done.stdout.split(f"{MARK}\n")[: len(commands)]]


def ports_that_nobody_is_given(number: int) -> list[int]:
    """Free, and outside of the range from which the kernel gives them: Ray asks for many while it starts."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == number:
            break
    return found


@pytest.fixture
def environment() -> dict[str, str]:
    """Ports that are free, and the command that is tested. What a reader does not set is not set either."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ASYNCPROC_") and name != "RAY_AUTH_MODE"
    }
    port, dashboard = ports_that_nobody_is_given(2)
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}:{inherited['PATH']}",
        "ASYNCPROC_API_LISTEN_ADDR": f"127.0.0.1:{port}",
        "ASYNCPROC_RAY_DASHBOARD_PORT": str(dashboard),
        "ASYNCPROC_URL": f"http://127.0.0.1:{port}",
    }


@pytest.mark.timeout(400)
def test_the_tour_is_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    found = steps(TOUR.read_text())
    assert len(found) > 40
    try:
        printed = run([command for command, _ in found], tmp_path, environment)
    finally:
        subprocess.run([sys.executable, "-m", "asyncproc", "down"], cwd=tmp_path, env=environment, check=False)
    checker = doctest.OutputChecker()
    for (command, expected), seen in zip(found, printed, strict=True):
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert checker.check_output(f"{expected}\n", f"{seen}\n", flags), (
            f"$ {command}\n{seen}\n--- the tour says\n{expected}"
        )
