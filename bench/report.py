"""bench/REPORT.md and its plots."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt
import psutil

plt.switch_backend("Agg")

FOLDER: Final = Path(__file__).parent
Line = dict[str, Any]


def write(lines: list[Line], profile: dict[str, Any], postgres: str, folder: Path = FOLDER) -> None:
    """The report of a whole run; one line a row, as `summary` makes them."""
    by_name = {str(line["name"]): line for line in lines}
    _plots(by_name, folder / "plots")
    text = [
        "# Benchmark",
        "",
        "Made by `make bench`. Each row was measured the number of times given; the median stands for it.",
        "",
        f"- machine: {_machine()}",
        f"- versions: Python {platform.python_version()}, Ray {version('ray')}, Postgres {postgres},"
        f" psycopg {version('psycopg')}, asyncproc {version('asyncproc')}",
        "- load, Postgres (fsync on), Ray and workers share the machine; no-op tasks, 200 bytes of payload, 2 workers",
        "",
        "| row | value | min | max | unit | to reach | reached |",
        "|---|---|---|---|---|---|---|",
        *(_row(line) for line in lines),
        "",
        "What bounds the rows that miss: [docs/speed.md](../docs/speed.md).",
        "",
        "## Where the microseconds go",
        "",
        "CPU a task by process, while a backlog of no-ops drains:",
        "",
        *(f"- {name}: {value:.1f} us" for name, value in profile["processes"].items()),
        "",
        "The parts alone, without Ray and Postgres, by the clock:",
        "",
        *(f"- {name}: {value:.1f} us" for name, value in profile["parts"].items()),
        "",
        "Functions of the QueueActor's loop by their own time, under a profiler, as a share of all of it:",
        "",
        *(f"- {name}: {share:.0%}" for name, share in profile["queue_actor"]),
        "",
        "## Pictures",
        "",
        *(f"![{path.stem}](plots/{path.name})" for path in sorted((folder / "plots").glob("*.svg"))),
        "",
    ]
    (folder / "REPORT.md").write_text("\n".join(text))


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def _row(line: Line) -> str:
    also = {name: value for name, value in line["also"].items() if not name.startswith("bin_")}
    more = f" ({', '.join(f'{name} {value:,}' for name, value in also.items())})" if also else ""
    reached = "yes" if line["ok"] else "**no**"
    return (
        f"| `{line['name']}` | {line['value']:,}{more} | {line['min']:,} | {line['max']:,} | {line['unit']} |"
        f" {line['budget']:,} | {reached} |"
    )


def _plots(by_name: dict[str, Line], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, file, x, y in (
        ("depth", "throughput-by-depth", "tasks waiting", "tasks ended a second"),
        ("memory", "memory-by-depth", "tasks waiting", "PSS of the QueueActor, MB"),
        ("batch", "throughput-by-batch", "tasks a call", "tasks enqueued a second"),
    ):
        if name in by_name:
            _curve(folder / f"{file}.svg", by_name[name], x, y)
    if "latency" in by_name:
        _histogram(folder / "latency.svg", by_name["latency"])


def _curve(path: Path, line: Line, x: str, y: str) -> None:
    points = sorted((int(key), value) for key, value in line["also"].items() if key.isdecimal())
    figure, axes = plt.subplots(figsize=(6, 3.5))
    axes.plot([point[0] for point in points], [point[1] for point in points], marker="o")
    axes.set(xscale="log", xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _histogram(path: Path, line: Line) -> None:
    bins = {int(key.removeprefix("bin_")): value for key, value in line["also"].items() if key.startswith("bin_")}
    figure, axes = plt.subplots(figsize=(6, 3.5))
    axes.bar(list(bins), list(bins.values()), width=0.9, align="edge")
    axes.set(xlabel="ms from the call to the start of the task", ylabel="tasks")
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    # Without a date in it: a picture that shows the same is the same file.
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
