"""chaos/REPORT.md and its picture, from the last result of each fault."""

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

import matplotlib.pyplot as plt
import psutil

from chaos.campaign import BIN_S, GAP_TARGET_S, RAY_GAP_TARGET_S, SKIPPED, Result
from chaos.faults import FAULTS

plt.switch_backend("Agg")

FOLDER: Final = Path(__file__).parent
_COLOURS: Final = {"strike": "tab:red", "healed": "tab:green"}
_HEAD: Final = (
    "| fault | seed | strikes | acknowledged | unknown | lost | unexpected | doubled | may | unrecorded | wrong"
    " | early | inversions | gap p50 / p99 / max, s | verdict |"
)


def keep(result: Result, folder: Path = FOLDER) -> None:
    """Beside the results of the other faults, which stay what they were."""
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / f"{result.fault}.json").write_text(json.dumps(asdict(result)) + "\n")


def write(folder: Path = FOLDER) -> None:
    results = [
        Result(**json.loads(path.read_text()))
        for name in FAULTS
        if (path := folder / "results" / f"{name}.json").exists()
    ]
    _picture([result for result in results if result.timeline], folder / "timeline.png")
    text = [
        "# Chaos",
        "",
        "Made by `make chaos`: tasks by the hundred over HTTP (81 % sleep 1 ms, 15 % 20 ms, 4 % fail once, 0.1 % 2 s),"
        " and one fault at a time until all of them are acknowledged. An account of its own, which the system never"
        " sees, is joined with the tables in the end. `make chaos FAULT=queue_kill ARGS='--seed 7'` repeats one.",
        "",
        f"- machine: {psutil.cpu_count()} cores, Linux {platform.release().split('-')[0]};"
        " load, Postgres, Ray and workers share it",
        f"- versions: Python {platform.python_version()}, Ray {version('ray')}, psycopg {version('psycopg')}",
        f"- a gap in service should be under {GAP_TARGET_S:g} s in 99 of 100 cases; of the whole of"
        f" Ray, under {RAY_GAP_TARGET_S:g} s",
        "",
        _HEAD,
        "|" + "---|" * (_HEAD.count("|") - 1),
        *(row(result) for result in results),
        "",
        "*unknown*: tasks of requests that got no 2xx, each try by itself. *doubled*: ran again though no failure asked"
        " for it; *may*: what was running on processes that were killed. *unrecorded*: starts that the table does not"
        " know. *early*: before a delay or back-off was over. *inversions*: ready tasks that waited for another"
        " second after one that ranked lower had begun.",
        "",
        *_remarks(results),
        "![tasks that ended over time, strikes in red, returns in green](timeline.png)",
        "",
    ]
    (folder / "REPORT.md").write_text("\n".join(text))


def row(result: Result) -> str:
    if result.verdict == SKIPPED or not result.account:
        return f"| `{result.fault}` | {result.seed} |" + " |" * 12 + f" {result.verdict}: {result.why} |"
    account = result.account
    kinds = {name: account[name] for name in ("sequential", "overlapping", "after_end", "cut_off") if account[name]}
    doubled = f"{account['doubled']}" + (f" ({', '.join(f'{n} {k}' for k, n in kinds.items())})" if kinds else "")
    gap = " / ".join(f"{value:.2f}" for part in (0.5, 0.99, 1.0) if (value := result.gap(part)) is not None)
    cells = [
        f"`{result.fault}`",
        result.seed,
        sum(result.strikes.values()),
        f"{account['acknowledged']:,}",
        f"{account['unknown']:,}",
        account["lost"],
        account["unexpected"],
        doubled,
        result.may_double,
        account["unrecorded"],
        account["wrong"],
        account["early"],
        account["inversions"],
        gap or "",
        f"{result.verdict}{': ' + result.why if result.why else ''}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _remarks(results: list[Result]) -> list[str]:
    lines = []
    for result in results:
        if not result.account:
            continue
        struck = ", ".join(f"{what} {number}" for what, number in result.strikes.items())
        lines.append(f"- `{result.fault}`: {result.text}; {result.seconds:.0f} s. {struck}.")
        if answers := result.account["answers"]:
            told = ", ".join(f"{reason} {number}" for reason, number in answers.items())
            lines.append(f"  - instead of a 2xx: {told}; the longest 503 took {result.account['longest_503_s']:g} s")
        if by_node := result.by_node:
            whole = sum(by_node.values())
            told = ", ".join(f"{node} {number / whole:.0%}" for node, number in sorted(by_node.items()))
            lines.append(f"  - work by node: {told}")
        for kind, found in result.account["examples"].items():
            lines.append(f"  - {kind}: {'; '.join(found)}")
    return [*lines, ""]


def _picture(results: list[Result], path: Path) -> None:
    if not results:
        return
    figure, all_axes = plt.subplots(len(results), 1, figsize=(11, 1.7 * len(results)), squeeze=False)
    for result, axes in zip(results, all_axes[:, 0], strict=True):
        times = [number * BIN_S for number in range(len(result.timeline))]
        axes.fill_between(times, [ended / BIN_S for ended in result.timeline], step="post", alpha=0.6)
        for at_s, kind in result.marks:
            axes.axvline(at_s, color=_COLOURS[kind], linewidth=0.7)
        axes.set_title(f"{result.fault}: {result.verdict}", fontsize=9, loc="left")
        axes.set_ylabel("ended a second", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    all_axes[-1, 0].set_xlabel("seconds", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
