"""What it bears: tasks that kill and hang, ten times too much load, a million tasks to change, bursts, transactions."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Final
from uuid import UUID

import httpx
import psycopg
import ray

import asyncproc
from asyncproc.actors.places import Standing
from asyncproc.clock import monotonic, wall_now
from bench.client import Told, beside, flood
from bench.machine import PARKED, Machine, actors, pss_mb, query
from bench.rows import PATIENCE_S, Measured, Row, api, body, fill, reign_anew, stamps, warm_up
from tests.deployed import System
from tests.eventually import eventually

NAP_S: Final = 0.02
ILL: Final = 20
CONNECTIONS: Final = 300
PER_REQUEST: Final = 100
OFFERED: Final = 150_000
"""Tasks a second: ten times what the machine of the report can take and run. So many would be sent if each answer came
at once; a connection that waits for one sends nothing."""
REFUSED: Final = (429, 503)
EXPECTED: Final = (200, *REFUSED)
EVERY_S: Final = 0.2
PARKED_TASKS: Final = 1_000
BURST_WORKERS: Final = 6
COMMITS: Final = 300


def ill(machine: Machine) -> Measured:
    """20 tasks that kill their process and 20 that hang, among 10,000 of 20 ms: tasks a second of these, over the same
    without the others."""
    number = machine.scaled(10_000)
    with machine.system(queue={"concurrency": 4}) as system:
        system.enqueue("Nap", *[{"seconds": NAP_S}] * 500)
        _ended(system, "Nap", 500)
        well = _nap_rate(system, number, list)
        rate = _nap_rate(system, number, lambda: [*_spread_over(system, "Pill"), *_spread_over(system, "Hang")])
        _ended(system, "Pill", ILL)
        _ended(system, "Hang", ILL)
        failed, charged = query(
            system,
            "SELECT count(*) FILTER (WHERE type <> 'Nap' AND state = 'failed'),"
            " count(*) FILTER (WHERE type = 'Nap' AND (state <> 'succeeded' OR attempt > 1)) FROM asyncproc.task_done",
        )
    if (failed, charged) != (2 * ILL, 0):
        raise AssertionError(f"{failed} of {2 * ILL} failed, and {charged} others were charged with it")
    return Measured(rate / well, {"tasks/s": rate, "tasks/s when all are well": well})


def _spread_over(system: System, type_name: str) -> list[list[Any]]:
    return [system.make(type_name, {}) for _ in range(ILL)]


def _nap_rate(system: System, number: int, others: Callable[[], list[list[Any]]]) -> float:
    """Naps a second, by the record of the database, with others strewn among them."""
    before = query(system, "SELECT count(*) FROM asyncproc.task_done WHERE type = 'Nap'")[0]
    ills = iter(others())
    since = wall_now()
    for _ in range(0, number, max(1, number // (2 * ILL))):
        naps = system.make("Nap", *[{"seconds": NAP_S}] * (number // (2 * ILL) or 1))
        system.send([*next(ills, []), *naps])
    _ended(system, "Nap", before + number)
    (last,) = query(
        system, "SELECT extract(epoch FROM max(finished_at))::float8 FROM asyncproc.task_done WHERE type = 'Nap'"
    )
    return float(number / (last - since))


def _ended(system: System, type_name: str, number: int) -> None:
    done = "SELECT count(*) FROM asyncproc.task_done WHERE type = %s"
    eventually(lambda: query(system, done, type_name)[0] >= number, 600)


def overload(machine: Machine) -> Measured:
    """Far more than can be borne, for two minutes: how long a refusal takes in 99 of 100 cases, for clients of which
    each sends again at once; and beside it for such as heed `Retry-After`, and the waits of those who ask for health,
    read a task or cancel one meanwhile. All that was accepted must end, and the memory of QueueActor and workers stay
    what it was in the first minute."""
    with api(machine) as (url, system):
        warm_up(machine, system)
        parked = iter(_parked(system))
        sizes: list[float] = []
        seconds = machine.scaled(120)
        told, others = asyncio.run(_flooded(url, parked, seconds, lambda: sizes.append(_size_mb(system)), heeds=False))
        heeded, _ = asyncio.run(_flooded(url, parked, machine.scaled(30), lambda: None, heeds=True))
        accepted = PER_REQUEST * sum(len(each.get(200, [])) for each in (told, heeded))
        _drain(system)
        (done,) = query(system, "SELECT count(*) FROM asyncproc.task_done WHERE type = 'NoOp' AND state = 'succeeded'")
    odd = {status: len(waits) for each in (told, heeded) for status, waits in each.items() if status not in EXPECTED}
    if odd or done < accepted:
        raise AssertionError(f"{done} of {accepted} accepted tasks ended; answers with other statuses: {odd}")
    refused = _refused(told)
    if not refused:
        raise AssertionError("nothing was refused: this is no overload")
    half = len(sizes) // 2
    return Measured(
        _p99(refused),
        {
            "refused": float(len(refused)),
            "p50": statistics.median(refused),
            "p99 where Retry-After is heeded": _p99(_refused(heeded)),
            **{f"{name} p99": _p99(waits) for name, waits in others.items()},
            "accepted tasks/s": PER_REQUEST * len(told.get(200, [])) / seconds,
            "sent tasks/s": PER_REQUEST * sum(map(len, told.values())) / seconds,
            "MB in the first half": max(sizes[:half] or [0.0]),
            "MB in the second half": max(sizes[half:]),
        },
    )


async def _flooded(
    url: str, parked: Iterator[str], seconds: float, look: Callable[[], None], *, heeds: bool
) -> tuple[Told, dict[str, list[float]]]:
    """What the flood was told, and the waits of those who did something else meanwhile, none of whom may be refused."""
    one = next(parked)
    asked: dict[str, Iterator[tuple[str, str]]] = {
        "health": repeat(("GET", "/healthz")),
        "read": repeat(("GET", f"/task/{one}")),
        "cancel": (("POST", f"/task/{each}/cancel") for each in parked),
    }
    rate = OFFERED / PER_REQUEST
    sent = asyncio.ensure_future(
        flood(url, body(PER_REQUEST, "default"), CONNECTIONS, rate, seconds, look, heeds=heeds)
    )
    each = await asyncio.gather(*(beside(url, requests, EVERY_S, sent) for requests in asked.values()))
    others = dict(zip(asked, each, strict=True))
    if odd := {name: list(told) for name, told in others.items() if set(told) != {200}}:
        raise AssertionError(f"not all that was no enqueue was answered with 200: {odd}")
    return await sent, {name: told[200] for name, told in others.items()}


def _parked(system: System) -> list[str]:
    """Tasks enough to cancel."""
    return [
        str(UUID(bytes=task_id)) for task_id in system.enqueue("NoOp", *[{"text": ""}] * PARKED_TASKS, queue=PARKED)
    ]


def _refused(told: Told) -> list[float]:
    return [wait for status, waits in told.items() if status in REFUSED for wait in waits]


def _p99(waits: list[float]) -> float:
    return sorted(waits)[int(0.99 * len(waits))] if waits else 0.0


def _drain(system: System) -> None:
    """Asked once a second only: to look for what is left among millions takes its time."""
    until = monotonic() + PATIENCE_S
    while query(system, "SELECT EXISTS (SELECT FROM asyncproc.task_live WHERE queue <> %s)", PARKED)[0]:
        if monotonic() > until:
            raise AssertionError(f"tasks are left after {PATIENCE_S:g} s")
        time.sleep(1)


def _size_mb(system: System) -> float:
    return sum(pss_mb(process) for process in actors(system))


def million(machine: Machine) -> Measured:
    """1,000,000 waiting tasks: the slowest answer, in seconds, to explain, a new priority for all, and cancel all."""
    number = machine.scaled(1_000_000)
    with api(machine) as (url, system), httpx.Client(base_url=url, timeout=60) as http:
        fill(system, number, PARKED)
        reign_anew(system)
        (some,) = query(
            system, "SELECT id FROM asyncproc.task_live WHERE queue = %s OFFSET %s LIMIT 1", PARKED, number // 2
        )
        chosen = {"filter": {"queue": PARKED}}
        answers = {
            "explain": _answer_s(lambda: http.get(f"/task/{some}/explain")),
            "dry run": _answer_s(lambda: http.post("/tasks/bulk", json={"action": "cancel", "dryRun": True, **chosen})),
        }
        for name, action in (
            ("priority", {"action": "changePriority", "priority": 5}),
            ("cancel", {"action": "cancel"}),
        ):
            since = time.perf_counter()
            answers[name] = _answer_s(lambda action=action: http.post("/tasks/bulk", json={**action, **chosen}))  # type: ignore[misc]
            eventually(lambda: _is_done(http), 600)
            answers[f"{name}, all done"] = time.perf_counter() - since
    return Measured(max(value for name, value in answers.items() if "done" not in name), answers)


def _answer_s(call: Callable[[], httpx.Response]) -> float:
    since = time.perf_counter()
    call().raise_for_status()
    return time.perf_counter() - since


def _is_done(http: httpx.Client) -> bool:
    latest = http.get("/operations").raise_for_status().json()["operations"][0]
    return latest["state"] not in ("waiting", "running")


def burst(machine: Machine) -> Measured:
    """A pool of none to six workers gets 3,000 tasks of 50 ms: seconds until all six take tasks."""
    pool = {"queues": ["burst"], "workers": {"min": 0, "max": BURST_WORKERS}, "idleAfter": "2s"}
    with machine.system(pools={"burst": pool}) as system:
        number = machine.scaled(3_000)
        since = time.perf_counter()
        system.enqueue("Nap", *[{"seconds": 0.05}] * number, queue="burst")
        eventually(lambda: _of_the_burst(system) == BURST_WORKERS, 60)
        all_there = time.perf_counter() - since
        _ended(system, "Nap", number)
        ended = time.perf_counter()
        eventually(lambda: not _of_the_burst(system), 120)
        to_none = time.perf_counter() - ended
        (ill,) = query(system, "SELECT count(*) FROM asyncproc.task_done WHERE state <> 'succeeded' OR attempt > 1")
    if ill:
        raise AssertionError(f"{ill} tasks failed or were tried again")
    return Measured(all_there, {"none again after the last task": to_none})


def _of_the_burst(system: System) -> int:
    """Workers that take tasks; one that only starts has a name already."""
    standings: list[Standing] = ray.get(system.queue().pools.remote())
    return sum(standing.present for standing in standings if standing.pool == "burst")


def transaction(machine: Machine) -> Measured:
    """From the commit of a caller's own transaction to the first line of the task, in milliseconds."""
    with machine.system() as system:
        warm_up(machine, system)
        committed: dict[bytes, float] = {}
        with psycopg.connect(system.deployment.conninfo) as connection:
            for _ in range(machine.scaled(COMMITS)):
                task_id = asyncproc.enqueue(connection, "Stamp", {})
                connection.commit()
                committed[UUID(task_id).bytes] = monotonic()
                time.sleep(0.02)
        _ended(system, "Stamp", len(committed))
        waits = sorted(1_000 * (began - committed[task_id]) for task_id, began in stamps(system))
    return Measured(statistics.median(waits), {"p99": waits[int(0.99 * len(waits))], "most": waits[-1]})


BEARING: Final = (
    Row("ill", "of all well", 0.8, True, ill),
    Row("overload", "ms p99 of a refusal", 100, False, overload, once=True),
    Row("million", "s", 1, False, million, once=True),
    Row("burst", "s", 5, False, burst),
    Row("transaction", "ms p50", 50, False, transaction),
)
