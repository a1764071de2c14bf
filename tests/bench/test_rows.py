"""The measurements on a small scale: that they work, not what they say."""

from argparse import Namespace
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from bench.__main__ import apart, summary
from bench.bearing import BEARING
from bench.machine import Machine
from bench.report import write
from bench.rows import ROWS, Measured, Row

BY_NAME = {row.name: row for row in (*ROWS, *BEARING)}


@pytest.fixture
def machine(ray_cluster: None, postgres: str, serve_url: str, tmp_path: Path) -> Machine:
    return Machine(postgres, tmp_path, serve_url, scale=0.005)


@pytest.mark.parametrize("name", ["enqueue_http_single", "drain", "latency", "transaction"])
def test_a_row_can_be_measured(machine: Machine, name: str) -> None:
    assert BY_NAME[name].measure(machine).value > 0


def test_a_row_that_prints_nothing_in_its_own_process_ends_the_run() -> None:
    nonesuch = Row("nonesuch", "s", 1, False, lambda machine: Measured(0, {}))

    with pytest.raises(CalledProcessError):
        apart(nonesuch, Namespace(runs=1, scale=0.005))


def test_the_median_run_speaks_for_a_row() -> None:
    row = Row("speed", "tasks/s", 20, True, lambda machine: Measured(0, {}))

    line = summary(row, [Measured(30, {}), Measured(10, {"why": 1}), Measured(19, {"why": 2})])

    assert line == {
        "name": "speed",
        "value": 19,
        "unit": "tasks/s",
        "min": 10,
        "max": 30,
        "budget": 20,
        "ok": False,
        "also": {"why": 2},
    }


def test_the_report_has_every_row_and_a_picture_of_each_curve(tmp_path: Path) -> None:
    runs = [Measured(1.0, {"20000": 2.0, "1000000": 1.0, "bin_3": 4.0})]
    lines = [summary(row, runs) for row in ROWS]
    profile = {"processes": {"QueueActor": 1.0}, "parts": {"core.step": 2.0}, "queue_actor": [("step.py:step", 0.5)]}

    write(lines, profile, "18.4", tmp_path)

    text = (tmp_path / "REPORT.md").read_text()
    assert all(f"| `{row.name}` |" in text for row in ROWS)
    pictures = {path.name for path in (tmp_path / "plots").iterdir()}
    assert pictures == {"latency.svg", "memory-by-depth.svg", "throughput-by-batch.svg", "throughput-by-depth.svg"}
