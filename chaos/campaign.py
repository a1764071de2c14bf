"""One run: load on a system, a fault that strikes it again and again, quiet, and the account of every task."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: a run can be repeated
from typing import Any, Final

import httpx

from chaos import account
from chaos.account import Account, Row
from chaos.clients import Clients, Load
from chaos.faults import Fault
from chaos.gaps import gaps, share
from chaos.ledger import FAULTS, TASKS, LedgerTorn, Pen, Record, Tail, read
from chaos.scene import Scene, Unfit, wait
from chaos.system import WORKER, NotInTime, System, until

DRAIN_S: Final = 180.0
REST_S: Final = 1800.0
SETTLE_S: Final = 60.0
"""For what was asked already to be acknowledged, once nothing is done to the system any more."""
GAP_TARGET_S: Final = 5.0
RAY_GAP_TARGET_S: Final = 60.0
"""From the kill of the whole of Ray to the first task that begins again, the start of all of it included."""
BIN_S: Final = 0.25

PASSED: Final = "passed"
FAILED: Final = "FAILED"
INVALID: Final = "INVALID"
SKIPPED: Final = "skipped"


@dataclass
class Result:
    fault: str
    text: str
    seed: int
    verdict: str
    why: str = ""
    seconds: float = 0.0
    strikes: dict[str, int] = field(default_factory=dict)
    may_double: int = 0
    account: dict[str, Any] = field(default_factory=dict)
    gap_after: str = ""
    gaps_s: list[float] = field(default_factory=list)
    timeline: list[int] = field(default_factory=list)
    """Tasks that ended in each quarter of a second."""
    by_node: dict[str, int] = field(default_factory=dict)
    """Runs of tasks on each node, where there is more than one."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """When what struck or was healed, in seconds of the run."""

    def gap(self, part: float) -> float | None:
        return share(self.gaps_s, part) if self.gaps_s else None


def run(system: System, fault: Fault, load: Load, folder: Path, *, brief: bool = False) -> Result:
    """Never raises for what the system does: that is in the result."""
    result = Result(fault.name, fault.text, load.seed, PASSED, gap_after=fault.gap)
    clients = Clients(system.url, folder, load)
    scene = Scene(system, clients, folder, Pen(folder / FAULTS), Random(load.seed), brief)
    clients.start()
    trouble = ""
    try:
        trouble = _strike(scene, fault)
    except Unfit as unfit:
        result.verdict, result.why = SKIPPED, str(unfit)
        return result
    except Exception as error:
        trouble = f"{type(error).__name__}: {error}"
    finally:
        scene.pen.write("quiet")
        clients.finish(SETTLE_S)
    trouble = "; ".join(filter(None, (trouble, clients.refusal, _drained(system, load.run))))
    try:
        rows = [Row.of(values) for values in system.query(account.ROWS, load.run)]
        one_key = repeats_are_one(system.url, load.run)
        found = account.settle(folder, rows, load.seed, one_key_one_task=one_key, may_lose=fault.kills_workers)
    except (LedgerTorn, NotInTime) as error:
        result.verdict, result.why = INVALID, str(error)
        return result
    result.may_double = scene.may_double
    result.account = {**asdict(found), "doubled": found.doubled, "one_key_one_task": one_key}
    _read_times(result, folder)
    if fault.nodes:
        starts = (record.fields[3] for record in read(folder / TASKS) if record.kind == "start")
        result.by_node = dict(Counter(system.node_of.get(pid, "unknown") for pid in starts))
    missing = [name for name in planned(fault, brief=brief) if name not in scene.fired]
    result.verdict, result.why = judge(found, result.may_double, trouble, missing)
    return result


def planned(fault: Fault, *, brief: bool) -> list[str]:
    return [fault.variants[variant] for variant in fault.struck_by(brief=brief)]


def _strike(scene: Scene, fault: Fault) -> str:
    """Until all variants struck and all was asked for; returns what went wrong."""
    tail = Tail(scene.folder / TASKS)
    until(lambda: tail.look() or scene.clients.refusal, SETTLE_S, "the first task that ends")
    number = 0
    variants = fault.struck_by(brief=scene.brief)
    while number < len(variants) or not (fault.once or scene.clients.has_sent_all()):
        low, high = (0.2, 0.6) if scene.brief else fault.pause_s
        wait(scene.chance.uniform(low, high))
        if scene.clients.refusal:
            return scene.clients.refusal
        fault.strike(scene, variants[number % len(variants)])
        number += 1
        ended = tail.look()
        until(lambda: tail.look() > ended or scene.clients.has_sent_all(), DRAIN_S, "tasks that go on")  # noqa: B023
    until(lambda: scene.clients.has_sent_all() or scene.clients.refusal, REST_S, "the rest of what is to be asked for")
    return ""


def _drained(system: System, run_name: str) -> str:
    """Wait until nothing of the run is left to do; returns what went wrong."""
    left = "SELECT count(*) FROM asyncproc.task_live WHERE created_by = %s"
    try:
        until(lambda: system.query(left, run_name)[0][0] == 0, DRAIN_S, "the end of all tasks")
        until(system.is_healthy, SETTLE_S, "a system that is well after all")
        until(
            lambda: len(system.named(WORKER)) == system.workers, SETTLE_S, f"{system.workers} workers, no more, no less"
        )
    except NotInTime as error:
        return str(error)
    return ""


def repeats_are_one(url: str, run_name: str) -> bool:
    """Whether this API makes one task of a request that comes twice under one key."""
    body = {"tasks": [{"taskType": "Chore", "payload": {"ledger": "/dev/null", "n": 0, "ms": 0, "fails": 0}}]}
    headers = {"Idempotency-Key": f"probe-{run_name}"}
    try:
        answers = [httpx.post(f"{url}/tasks/enqueue", json=body, headers=headers, timeout=30) for _ in range(2)]
        first, second = (answer.json()["tasks"][0]["id"] for answer in answers)
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise NotInTime(f"the API does not say how it takes repeats: {error!r}") from error
    return bool(first == second)


def judge(found: Account, may_double: int, trouble: str, missing: list[str]) -> tuple[str, str]:
    """The verdict, and why where it is not a pass."""
    broken = [
        f"{number} {name}"
        for name, number in (
            ("lost", found.lost),
            ("unexpected", found.unexpected),
            ("in a wrong state", found.wrong),
            ("starts that are not on record", found.unrecorded),
        )
        if number
    ]
    if found.doubled > may_double:
        broken.append(f"{found.doubled} doubled, {may_double} may be")
    if broken:
        return FAILED, "; ".join([*broken, trouble]).rstrip("; ")
    if trouble:
        return FAILED, trouble
    if missing:
        return INVALID, f"never struck: {', '.join(missing)}"
    if not found.acknowledged:
        return INVALID, "no request was acknowledged"
    return PASSED, ""


def _read_times(result: Result, folder: Path) -> None:
    """Gaps, and what the picture shows."""
    tasks = sorted(read(folder / TASKS), key=_at)
    faults = list(read(folder / FAULTS))
    if not tasks:
        return
    begin_s = min(tasks[0].at_s, *(record.at_s for record in faults))
    starts = [record.at_s for record in tasks if record.kind == "start"]
    marked = [record for record in faults if record.kind != "quiet"]
    interruptions = [record.at_s for record in marked if record.fields[1]]
    result.gaps_s = [round(gap, 3) for gap in gaps(starts, interruptions, [record.at_s for record in faults])]
    result.seconds = round(tasks[-1].at_s - begin_s, 1)
    ends = Counter(int((record.at_s - begin_s) / BIN_S) for record in tasks if record.kind == "end")
    result.timeline = [ends[number] for number in range(max(ends, default=0) + 1)]
    result.marks = [(round(record.at_s - begin_s, 2), record.kind) for record in marked]
    result.strikes = dict(Counter(record.fields[0] for record in marked if record.kind == "strike"))


def _at(record: Record) -> int:
    return record.at_ns
