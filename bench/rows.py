"""Each row of the budget table: how it is measured, and what it has to reach."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import psycopg
import ray
from ray import serve

from asyncproc.clock import wall_now
from asyncproc.core.task import NewTask
from asyncproc.serving import application
from bench.client import answers_only, free_port, post_bodies
from bench.machine import PARKED, WORKERS, Machine, actors, postgres_of, pss_mb, query
from tests.deployed import System
from tests.eventually import eventually

TEXT: Final = {"text": "x" * 187}
"""200 bytes of payload."""
PATIENCE_S: Final = 900.0
REIGNS: Final = 3


@dataclass(frozen=True, slots=True)
class Measured:
    value: float
    also: dict[str, float]
    """Figures that explain the value; they have no budget."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    unit: str
    budget: float
    more_is_better: bool
    measure: Callable[[Machine], Measured]
    once: bool = False
    """One run measures several times itself."""
    bare: bool = False
    """It starts what it measures, and nothing else may be there."""

    def reaches(self, value: float) -> bool:
        return value >= self.budget if self.more_is_better else value <= self.budget


def send(system: System, batches: list[list[NewTask]], at_once: int = 4) -> float:
    """Seconds until all batches are committed, with so many calls on their way at a time."""

    async def run() -> float:
        queue = system.queue()
        waiting = iter(batches)

        async def sender() -> None:
            for batch in waiting:
                refusal = await queue.enqueue.remote(batch, False)
                assert refusal is None, refusal

        since = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(at_once)))
        return time.perf_counter() - since

    return asyncio.run(run())


def no_ops(system: System, number: int, per_call: int = 1_000, **options: Any) -> list[list[NewTask]]:
    return [system.make("NoOp", *[TEXT] * min(per_call, number - at), **options) for at in range(0, number, per_call)]


@contextmanager
def held(system: System) -> Iterator[Callable[[], float]]:
    """Workers occupied until the function is called; it returns when that was."""
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        system.enqueue("Hold", *[{"gate": str(gate)}] * WORKERS, priority=100)
        eventually(
            lambda: query(system, "SELECT count(*) FROM asyncproc.task_live WHERE state = 'running'")[0] == WORKERS
        )

        def let_go() -> float:
            gate.touch()
            return time.perf_counter()

        try:
            yield let_go
        finally:
            gate.touch()


def wait_until_done(system: System, number: int) -> float:
    """When that many no-ops had ended."""
    done = "SELECT count(*) FROM asyncproc.task_done WHERE type = 'NoOp'"
    eventually(lambda: query(system, done)[0] >= number, PATIENCE_S)
    return time.perf_counter()


def drain_rate(system: System, backlog: int, number: int) -> float:
    """No-ops ended a second, from a backlog, by the database's own record of the first `number`."""
    with held(system) as let_go:
        send(system, no_ops(system, backlog))
        let_go()
        wait_until_done(system, number)
    first, last = query(
        system,
        "SELECT extract(epoch FROM min(started_at))::float8, extract(epoch FROM max(finished_at))::float8 FROM ("
        " SELECT started_at, finished_at FROM asyncproc.task_done WHERE type = 'NoOp' ORDER BY finished_at LIMIT %s) t",
        number,
    )
    return float(number / (last - first))


def enqueue_bulk(machine: Machine) -> Measured:
    with machine.system() as system:
        send(system, no_ops(system, machine.scaled(5_000), queue=PARKED))
        number = machine.scaled(60_000)
        batches = no_ops(system, number, queue=PARKED)
        return Measured(number / send(system, batches), {})


def batch(machine: Machine) -> Measured:
    """The same by the number of tasks a call; it has no budget of its own but that of 1,000."""
    rates: dict[str, float] = {}
    with machine.system() as system:
        send(system, no_ops(system, machine.scaled(5_000), queue=PARKED))
        for per_call, most in ((1, 2_000), (10, 10_000), (100, 40_000), (1_000, 60_000), (5_000, 60_000)):
            number = machine.scaled(most)
            batches = no_ops(system, number, per_call, queue=PARKED)
            rates[str(per_call)] = number / send(system, batches)
    return Measured(rates["1000"], rates)


@contextmanager
def api(machine: Machine) -> Iterator[tuple[str, System]]:
    """A system with its REST API; the URL first."""
    with machine.system() as system:
        url = machine.serve_url()
        serve.run(application(system.settings, machine.start_dir), name="bench", route_prefix="/")
        try:
            eventually(lambda: httpx.get(f"{url}/healthz").status_code == 200)
            yield url, system
        finally:
            serve.delete("bench")


def body(number: int, queue: str = PARKED) -> bytes:
    task = {"taskType": "NoOp", "queue": queue, "payload": TEXT}
    return json.dumps({"tasks": [task] * number}).encode()


def enqueue_http(machine: Machine) -> Measured:
    with api(machine) as (url, _):
        post_bodies(url, body(1_000), 5, 2)
        number = machine.scaled(60)
        seconds = post_bodies(url, body(1_000), number, 4).seconds
        return Measured(1_000 * number / seconds, {})


def enqueue_http_single(machine: Machine) -> Measured:
    """Against a Serve application that only answers, on the same machine, by the same client."""
    number = machine.scaled(10_000)
    with answers_only(machine) as url:
        post_bodies(url, body(1), 500, 32)
        bare = post_bodies(url, body(1), number, 32)
    with api(machine) as (url, _):
        post_bodies(url, body(1), 500, 32)
        ours = post_bodies(url, body(1), number, 32)
    rates = number / ours.seconds, number / bare.seconds
    return Measured(100 * rates[0] / rates[1], {"requests_per_s": rates[0], "bare_requests_per_s": rates[1]})


def drain(machine: Machine) -> Measured:
    with machine.system() as system:
        warm_up(machine, system)
        backlog = machine.scaled(20_000)
        return Measured(drain_rate(system, backlog, backlog), {})


def warm_up(machine: Machine, system: System) -> None:
    """Plans prepared, run times known, interpreters warm."""
    number = machine.scaled(5_000)
    send(system, no_ops(system, number))
    wait_until_done(system, number)
    query(system, "DELETE FROM asyncproc.task_done WHERE type = 'NoOp' RETURNING 1")


def combined(machine: Machine) -> Measured:
    with machine.system() as system:
        warm_up(machine, system)
        number = machine.scaled(50_000)
        batches = no_ops(system, number)
        since = time.perf_counter()
        send(system, batches)
        return Measured(number / (wait_until_done(system, number) - since), {})


def latency(machine: Machine) -> Measured:
    """From the call to the first line of the task, 50 a second, through the gateway as the API uses it."""
    with machine.system() as system:
        warm_up(machine, system)
        number, rate = machine.scaled(1_000), 50
        called: dict[bytes, float] = {}
        at = time.monotonic()
        for _ in range(number):
            at += 1 / rate
            time.sleep(max(0.0, at - time.monotonic()))
            tasks = system.make("Stamp", {})
            called[tasks[0][0]] = time.monotonic()
            system.send(tasks)
        eventually(lambda: query(system, "SELECT count(*) FROM asyncproc.task_done WHERE type = 'Stamp'")[0] == number)
        waits = sorted(1_000 * (began - called[task_id]) for task_id, began in stamps(system))
    p50, p99 = statistics.median(waits), waits[int(0.99 * len(waits))]
    return Measured(p50, {"p99": p99, "p999": waits[int(0.999 * len(waits))], **histogram(waits)})


def latency_p99(machine: Machine) -> Measured:
    found = latency(machine)
    return Measured(found.also["p99"], {"p50": found.value, **found.also})


def stamps(system: System) -> list[tuple[bytes, float]]:
    with psycopg.connect(system.deployment.conninfo, autocommit=True) as connection:
        rows = connection.execute("SELECT id, result::text::float8 FROM asyncproc.task_done WHERE type = 'Stamp'")
        return [(task_id.bytes, began) for task_id, began in rows.fetchall()]


def histogram(waits_ms: list[float]) -> dict[str, float]:
    """Number of waits in each bin of a millisecond."""
    bins: dict[str, float] = {}
    for wait in waits_ms:
        key = f"bin_{min(int(wait), 50)}"
        bins[key] = bins.get(key, 0) + 1
    return bins


def cpu_tasks(machine: Machine) -> Measured:
    """200 tasks of 20 ms CPU on 2 workers: the time it would take at best, over the time it took."""
    with machine.system() as system:
        number, cpu_s = machine.scaled(200), 0.02
        system.enqueue("Burn", *[{"cpu_s": cpu_s}] * 10)
        burnt = "SELECT count(*) FROM asyncproc.task_done WHERE type = 'Burn'"
        eventually(lambda: query(system, burnt)[0] == 10)
        ideal_s = number * cpu_s / WORKERS
        since = wall_now()
        system.enqueue("Burn", *[{"cpu_s": cpu_s}] * number)
        # Asking opens a connection each time, which would take a tenth of a core from what is measured.
        time.sleep(ideal_s)
        eventually(lambda: query(system, burnt)[0] == 10 + number)
        (ended,) = query(system, "SELECT extract(epoch FROM max(finished_at))::float8 FROM asyncproc.task_done")
        return Measured(ideal_s / (ended - since), {})


def batch_calls(machine: Machine) -> Measured:
    """A model whose call costs 20 ms whatever it is given: tasks a second by 32 a call, over one by one."""
    with machine.system() as system:
        single = _inferred(system, "Infer", machine.scaled(400))
        together = _inferred(system, "InferTogether", machine.scaled(6_400))
    return Measured(together / single, {"together": together, "single": single})


def _inferred(system: System, type_name: str, number: int) -> float:
    """Tasks a second, once it is known how long they run."""
    done = "SELECT count(*) FROM asyncproc.task_done WHERE type = %s"
    system.enqueue(type_name, *[{"n": n} for n in range(64)])
    eventually(lambda: query(system, done, type_name)[0] == 64, PATIENCE_S)
    with held(system) as let_go:
        system.enqueue(type_name, *[{"n": n} for n in range(number)])
        let_go()
        since = wall_now()
        # Asking opens a connection each time, which would take its part of what is measured.
        time.sleep(number * 0.02 / WORKERS / 32)
        eventually(lambda: query(system, done, type_name)[0] == 64 + number, PATIENCE_S)
    (ended,) = query(system, "SELECT extract(epoch FROM max(finished_at))::float8 FROM asyncproc.task_done")
    return float(number / (ended - since))


def depth(machine: Machine) -> Measured:
    with machine.system() as system:
        warm_up(machine, system)
        shallow = drain_rate(system, machine.scaled(20_000), machine.scaled(20_000))
    rates = {"20000": shallow}
    for backlog in (100_000, 1_000_000):
        with machine.system() as system:
            warm_up(machine, system)
            rates[str(backlog)] = drain_rate(system, machine.scaled(backlog), machine.scaled(20_000))
    return Measured(rates["1000000"] / shallow, rates)


FILL: Final = """
    INSERT INTO asyncproc.task_live (id, rank, ready_at, created_at, priority, max_attempts, backoff_s, backoff_factor,
        backoff_cap_s, backoff_jitter, state, type, queue, created_by, payload)
    SELECT uuidv7(), at + n / 1e6, to_timestamp(at + n / 1e6), to_timestamp(at + n / 1e6), 0, 4, 1, 2,
        3600, 0.1, 'queued', 'NoOp', %s, '', ('{"text":"' || repeat('x', 187) || '"}')::json
    FROM generate_series(1, %s) n, (SELECT extract(epoch FROM now())::float8 AS at) t
"""


def fill(system: System, number: int, queue: str = "default") -> None:
    """Rows as a reign before would have left them; the QueueActor is restarted to find them."""
    with psycopg.connect(system.deployment.conninfo, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for done in range(0, number, 1_000_000):
            connection.execute(FILL.encode(), (queue, min(number - done, 1_000_000)))
        connection.execute("VACUUM ANALYZE asyncproc.task_live")


def reign_anew(system: System) -> None:
    """Let a new QueueActor find what is in the table."""
    epoch = system.health().epoch
    system.kill_queue()
    eventually(lambda: system.is_whole(epoch + 1), PATIENCE_S)


def restarted(system: System) -> float:
    """Seconds from the SIGKILL of the QueueActor until a task ends that was posted, as the first to run, after it."""
    epoch = system.health().epoch
    since = time.perf_counter()
    system.kill_queue()
    (task_id,) = system.enqueue("Stamp", {}, priority=100)
    system.ended(task_id)
    seconds = time.perf_counter() - since
    eventually(lambda: system.is_whole(epoch + 1), PATIENCE_S)
    return seconds


def memory(machine: Machine) -> Measured:
    """Three reigns at each size; the table grows in one system, because to fill it takes minutes."""
    sizes: dict[str, float] = {}
    filled = 0
    with machine.system() as system:
        for backlog in (100_000, 1_000_000, 10_000_000):
            fill(system, machine.scaled(backlog) - filled, PARKED)
            filled = machine.scaled(backlog)
            found: list[float] = []
            for _ in range(REIGNS):
                reign_anew(system)
                found.append(pss_mb(actors(system)[0]))
            sizes[str(backlog)] = statistics.median(found)
    return Measured(sizes["10000000"] / sizes["100000"], sizes)


def restart(machine: Machine) -> Measured:
    with machine.system() as system:
        warm_up(machine, system)
        with held(system) as let_go:
            fill(system, machine.scaled(1_000_000))
            reign_anew(system)
            let_go()
            eventually(
                lambda: (
                    query(system, "SELECT count(*) FROM asyncproc.task_done WHERE type = 'NoOp'")[0]
                    > machine.scaled(5_000)
                )
            )
            return Measured(restarted(system), {})


def idle(machine: Machine) -> Measured:
    """Per cent of a core that the QueueActor, the workers and Postgres use while nothing happens; beside it, what an
    actor without any code uses, for Ray's own threads run in every actor, and what is left without those."""
    with machine.system() as system:
        warm_up(machine, system)
        _, postgres = postgres_of(system)
        empty: Any = ray.remote(_Empty).options(num_cpus=0).remote()
        empty_process = psutil.Process(ray.get(empty.pid.remote()))
        time.sleep(machine.scaled(5))
        processes = [*actors(system), *postgres, empty_process]
        names = {process.pid: process.name() for process in processes}
        before = _cpu_s(processes)
        seconds = machine.scaled(30)
        time.sleep(seconds)
        used = {pid: 100 * (after - before[pid]) / seconds for pid, after in _cpu_s(processes).items()}
        ray.kill(empty)
        an_empty_actor = used.pop(empty_process.pid)
        ours = sum(value for pid, value in used.items() if not names[pid].startswith("postgres"))
        without_rays = sum(used.values()) - len(actors(system)) * an_empty_actor
        return Measured(
            sum(used.values()), {"actors": ours, "an_empty_actor": an_empty_actor, "without_rays_own": without_rays}
        )


class _Empty:
    def pid(self) -> int:
        return os.getpid()


def _cpu_s(processes: list[psutil.Process]) -> dict[int, float]:
    """By process id: Ray shows in a process' name what it is doing."""
    used: dict[int, float] = {}
    for process in processes:
        try:
            times = process.cpu_times()
            used[process.pid] = times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return used


def footprint(machine: Machine) -> Measured:
    with machine.system() as system:
        warm_up(machine, system)
        sizes = [pss_mb(process) for process in actors(system)]
        return Measured(sum(sizes), {"queue_actor": sizes[0], "workers": sum(sizes[1:])})


def start(machine: Machine) -> Measured:
    """`asyncproc up` in a new directory, its first database included, until /healthz answers."""
    del machine
    with tempfile.TemporaryDirectory(prefix="ap-") as folder:
        port, dashboard = free_port(), free_port()
        config = f"api: {{listenAddr: '127.0.0.1:{port}'}}\nray: {{dashboardPort: {dashboard}}}\n"
        (Path(folder) / "asyncproc.yaml").write_text(config)
        since = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "asyncproc", "up"], cwd=folder, stdout=subprocess.DEVNULL)
        try:
            eventually(lambda: _is_healthy(f"http://127.0.0.1:{port}/healthz"))
            return Measured(time.perf_counter() - since, {})
        finally:
            process.terminate()
            process.wait(60)


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


ROWS: Final = (
    Row("enqueue_bulk", "tasks/s", 40_000, True, enqueue_bulk),
    Row("batch", "tasks/s", 40_000, True, batch),
    Row("enqueue_http", "tasks/s", 15_000, True, enqueue_http),
    Row("enqueue_http_single", "% of bare Serve", 70, True, enqueue_http_single),
    Row("drain", "tasks/s", 18_000, True, drain),
    Row("combined", "tasks/s", 13_000, True, combined),
    Row("latency", "ms p50", 4.5, False, latency),
    Row("latency_p99", "ms", 8, False, latency_p99),
    Row("cpu_tasks", "of ideal", 0.95, True, cpu_tasks),
    Row("batch_calls", "times one by one", 5, True, batch_calls),
    Row("depth", "of shallow", 0.9, True, depth),
    Row("memory", "of shallow", 1.1, False, memory, once=True),
    Row("restart", "s", 5, False, restart),
    Row("idle", "% of a core", 1, False, idle),
    Row("footprint", "MB PSS", 250, False, footprint),
    Row("start", "s", 15, False, start, bare=True),
)
