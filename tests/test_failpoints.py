import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asyncproc import failpoints
from asyncproc.failpoints import NAMES, VARIABLE, FailpointHit, FailpointsInvalid
from tests.eventually import eventually


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


def test_without_the_variable_nothing_happens() -> None:
    failpoints.arm({})

    for name in NAMES:
        failpoints.hit(name)
    assert not failpoints.armed


def test_every_declared_name_is_hit_in_one_place_at_least_and_no_other_is() -> None:
    package = Path(failpoints.__file__).parent
    sources = [path.read_text() for path in package.rglob("*.py") if path.name != "failpoints.py"]

    found = {name for text in sources for name in re.findall(r'failpoints\.hit\("([^"]+)"\)', text)}

    assert found == NAMES


def test_a_start_with_the_variable_set_says_so(caplog: pytest.LogCaptureFixture) -> None:
    failpoints.arm({VARIABLE: "queue.after_commit=raise"})

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "queue.after_commit=raise" in record.getMessage()


def test_a_failpoint_acts_where_it_is_named_and_nowhere_else() -> None:
    failpoints.arm({VARIABLE: "queue.after_commit=raise; worker.after_effect=sleep:0"})

    failpoints.hit("queue.before_commit")
    failpoints.hit("worker.after_effect")
    with pytest.raises(FailpointHit, match=r"queue\.after_commit"):
        failpoints.hit("queue.after_commit")


def test_the_nth_hit_acts_and_no_other() -> None:
    failpoints.arm({VARIABLE: "queue.after_commit=raise:n3"})

    acted = []
    for number in range(1, 6):
        try:
            failpoints.hit("queue.after_commit")
        except FailpointHit:
            acted.append(number)

    assert acted == [3]


@pytest.mark.parametrize(("chance", "expected"), [("0", 0), ("1", 50)])
def test_a_chance_decides_each_hit(chance: str, expected: int) -> None:
    failpoints.arm({VARIABLE: f"queue.after_commit=raise:{chance}"})

    acted = 0
    for _ in range(50):
        try:
            failpoints.hit("queue.after_commit")
        except FailpointHit:
            acted += 1

    assert acted == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queue.after_comit=kill", r"no failpoint 'queue\.after_comit'; there are .*queue\.after_commit"),
        ("queue.after_commit", "has no action"),
        ("queue.after_commit=explode", "has no action; there are kill, stop, raise, sleep"),
        ("queue.after_commit=sleep", "lacks a number"),
        ("queue.after_commit=sleep:soon", "lacks a number"),
        ("queue.after_commit=kill:1.5", "a chance is from 0 to 1"),
        ("queue.after_commit=kill:n0", "a hit from n1 on"),
        ("queue.after_commit=kill:0.5:n3", "nothing follows"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(FailpointsInvalid, match=said):
        failpoints.arm({VARIABLE: text})


def test_a_file_arms_and_disarms_a_process_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "failpoints"
    failpoints.arm({VARIABLE: f"@{file}"})
    failpoints.hit("queue.after_commit")

    file.write_text("queue.after_commit=raise")
    with pytest.raises(FailpointHit):
        failpoints.hit("queue.after_commit")
    file.unlink()
    failpoints.hit("queue.after_commit")

    (line,) = Path(f"{file}.fired").read_text().splitlines()
    assert line.split()[:3] == ["queue.after_commit", "raise", str(os.getpid())]


def _process(action: str) -> subprocess.Popen[str]:
    code = "from asyncproc import failpoints; failpoints.hit('worker.after_effect'); print('went on')"
    environment = {**os.environ, VARIABLE: f"worker.after_effect={action}"}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def test_kill_ends_the_process_at_once() -> None:
    process = _process("kill")

    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == -signal.SIGKILL


def test_stop_freezes_the_process_until_it_is_woken() -> None:
    process = _process("stop")

    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    process.send_signal(signal.SIGCONT)

    assert process.communicate(timeout=30)[0] == "went on\n"
