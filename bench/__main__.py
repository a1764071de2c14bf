"""`python -m bench [ROW ...] [--runs N]`: one JSON line a row, and bench/REPORT.md when all rows were run."""

import argparse
import json
import subprocess
import sys

from bench.bearing import BEARING
from bench.machine import machine
from bench.profile import by_process, of_the_parts, of_the_queue_actor
from bench.report import write
from bench.rows import ROWS, Measured, Row
from bench.steering import STEERING


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names of rows; all where none is named")
    parser.add_argument("--runs", type=int, default=3, help="how often each row is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="smaller, to see that it works; figures mean nothing")
    arguments = parser.parse_args()
    known = {row.name: row for row in (*ROWS, *STEERING, *BEARING)}
    unknown = [name for name in arguments.rows if name not in known]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    rows = [known[name] for name in arguments.rows] or list(known.values())
    lines = [measure(row, arguments) if len(rows) == 1 else apart(row, arguments) for row in rows]
    if not arguments.rows:
        with machine() as the_machine:
            found = {"processes": by_process(the_machine), "parts": of_the_parts(the_machine)}
            write(lines, {**found, "queue_actor": of_the_queue_actor(the_machine)}, the_machine.postgres_version())
    return 0 if all(line["ok"] for line in lines) else 1


def measure(row: Row, arguments: argparse.Namespace) -> dict[str, object]:
    with machine(bare=row.bare, scale=arguments.scale) as the_machine:
        line = summary(row, [row.measure(the_machine) for _ in range(1 if row.once else arguments.runs)])
    print(json.dumps(line), flush=True)
    return line


def apart(row: Row, arguments: argparse.Namespace) -> dict[str, object]:
    """In a process, a Postgres and a Ray of its own: what one row started, such as Ray Serve, must not work beside the
    next. Raises `CalledProcessError` where it printed no line."""
    command = [sys.executable, "-m", "bench", row.name, f"--runs={arguments.runs}", f"--scale={arguments.scale}"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    found = [line for line in ran.stdout.splitlines() if line.startswith('{"name"')]
    if not found:
        raise subprocess.CalledProcessError(ran.returncode, command)
    print(found[0], flush=True)
    line: dict[str, object] = json.loads(found[0])
    return line


def summary(row: Row, runs: list[Measured]) -> dict[str, object]:
    """The median run speaks for the row."""
    ordered = sorted(runs, key=lambda run: run.value)
    middle = ordered[len(ordered) // 2]
    return {
        "name": row.name,
        "value": round(middle.value, 3),
        "unit": row.unit,
        "min": round(ordered[0].value, 3),
        "max": round(ordered[-1].value, 3),
        "budget": row.budget,
        "ok": row.reaches(middle.value),
        "also": {name: round(value, 3) for name, value in middle.also.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
