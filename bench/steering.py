"""What limits, keys and fairness cost, and whether shares and rates are what they were set to."""

import time
from bisect import bisect_left
from collections import Counter
from itertools import chain
from typing import Any, Final

import psycopg

from asyncproc.core.task import NewTask
from bench.machine import Machine
from bench.rows import Measured, Row, combined, held, no_ops, send, wait_until_done, warm_up
from tests.deployed import System
from tests.eventually import eventually

KEYS: Final = 100
TENANTS: Final = 10
WEIGHTS: Final = {"one": 1, "two": 2, "five": 5}
PER_S: Final = 100
BURST: Final = 10


def steered(machine: Machine) -> Measured:
    """Combined throughput with limits of queue, type and key and with fairness keys, over that without any."""
    plain = combined(machine).value
    rules: dict[str, Any] = {
        "queues": {"default": {"maxRunning": 2_000, "maxRunningPerKey": 200, "fairnessWeights": {"tenant-1": 2}}},
        "types": {"NoOp": {"maxRunning": 1_800}},
    }
    with machine.system(**rules) as system:
        warm_up(machine, system)
        number = machine.scaled(50_000)
        batches = _keyed(system, number)
        since = time.perf_counter()
        send(system, batches)
        rate = number / (wait_until_done(system, number) - since)
    return Measured(rate / plain, {"tasks/s": rate, "plain tasks/s": plain})


def _keyed(system: System, number: int) -> list[list[NewTask]]:
    """Every batch has tasks of all keys and tenants."""
    per_key = 1_000 // KEYS
    groups = [
        list(
            chain.from_iterable(
                no_ops(
                    system,
                    number // KEYS,
                    per_key,
                    concurrency_key=f"key-{key}",
                    fairness_key=f"tenant-{key % TENANTS}",
                )
            )
        )
        for key in range(KEYS)
    ]
    mixed = [task for row in zip(*groups, strict=True) for task in row]
    return [mixed[at : at + 1_000] for at in range(0, len(mixed), 1_000)]


def shares(machine: Machine) -> Measured:
    """Three queues of weights 1, 2 and 5, all with work: how far the starts are from that, in percent of a share."""
    number = machine.scaled(30_000)
    with machine.system(queues={name: {"weight": weight} for name, weight in WEIGHTS.items()}) as system:
        warm_up(machine, system)
        with held(system) as let_go:
            for name in WEIGHTS:
                send(system, no_ops(system, number, queue=name))
            let_go()
            wait_until_done(system, number)
        with psycopg.connect(system.deployment.conninfo) as connection:
            rows = connection.execute(
                "SELECT queue FROM asyncproc.task_done WHERE type = 'NoOp' AND queue <> 'default'"
                " ORDER BY started_at LIMIT %s",
                [number],
            ).fetchall()
    started = Counter(row[0] for row in rows)
    fair = {name: number * weight / sum(WEIGHTS.values()) for name, weight in WEIGHTS.items()}
    apart = max(abs(started[name] - fair[name]) / fair[name] for name in WEIGHTS)
    return Measured(100 * apart, {name: float(started[name]) for name in WEIGHTS})


def rate(machine: Machine) -> Measured:
    """100 a second and a burst of 10, over 60 s and 4 workers: the most that started in any second."""
    seconds = max(2, machine.scaled(60))
    most = PER_S * seconds + BURST
    rules: dict[str, Any] = {
        "types": {"NoOp": {"rateLimits": {"api": 1}}},
        "rateLimits": {"api": {"rate": f"{PER_S}/s", "burst": BURST}},
        "queue": {"workerPoolSize": 4},
    }
    with machine.system(**rules) as system:
        send(system, no_ops(system, most + PER_S))
        eventually(lambda: len(_starts(system)) >= most, 2 * seconds + 30)
        starts = _starts(system)
    begun = [at for at in starts if at < starts[0] + seconds]
    window = max(bisect_left(starts, at + 1.0) - place for place, at in enumerate(begun))
    return Measured(window, {"in all": float(len(begun)), "allowed in all": float(most)})


def _starts(system: System) -> list[float]:
    with psycopg.connect(system.deployment.conninfo) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM started_at)::float8 FROM asyncproc.task_done WHERE type = 'NoOp' ORDER BY 1"
        )
        return [row[0] for row in rows.fetchall()]


def flood(machine: Machine) -> Measured:
    """A tenant has 20,000 tasks of 20 ms waiting: how long the tasks of another one wait, in run times of a task."""
    run_s = 0.02
    number = machine.scaled(20_000)
    with machine.system() as system:
        warm_up(machine, system)
        system.enqueue("Nap", *[{"seconds": run_s}] * 50)
        for _ in range(0, number, 1_000):
            system.send(system.make("Nap", *[{"seconds": run_s}] * 1_000, fairness_key="flood"))
        waits: list[float] = []
        for _ in range(max(3, machine.scaled(40))):
            (task,) = system.send(system.make("Nap", {"seconds": run_s}, fairness_key="quiet"))
            system.ended(task)
            with psycopg.connect(system.deployment.conninfo) as connection:
                (wait,) = connection.execute(
                    "SELECT extract(epoch FROM started_at - created_at)::float8 FROM asyncproc.task_done WHERE id = %s",
                    [task.hex()],
                ).fetchall()[0]
            waits.append(wait / run_s)
    waits.sort()
    return Measured(waits[len(waits) // 2], {"most": waits[-1]})


STEERING: Final = (
    Row("steered", "of plain", 0.8, True, steered),
    Row("shares", "% apart", 2, False, shares),
    Row("rate", "starts in a second", PER_S + BURST, False, rate),
    Row("flood", "run times", 1, False, flood),
)
