"""`python -m chaos.ticks`: many schedules while the QueueActor is killed again and again; each tick counts once.

The account is of the tables alone, and knows nothing of how ticks are made: a schedule of each second has one tick in
each, so what is missing or doubled shows. `--apart` does the same to core and storage alone, without Ray and workers,
on a clock that runs three times as fast: it takes a minute.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from asyncproc.clock import monotonic, wall_now
from asyncproc.local.postgres import EmbeddedPostgres
from asyncproc.storage.migrate import migrate
from chaos.system import QUEUE, System, system, until

SCHEDULES: Final = 1_000
TICKS: Final = 200_000
KILLS: Final = 10
SPEED: Final = 3.0
SETTLE_S: Final = 300.0
_PREFIX: Final = "tick-"

# Ticks that are decided more than once; those whose task is not there once, has not run well at the first attempt,
# or was for another instant.
DOUBLED: Final = """
    SELECT count(*) FROM (
        SELECT FROM asyncproc.tick WHERE outcome = 'task' GROUP BY schedule, due_at HAVING count(*) <> 1
    ) d
"""
WRONG: Final = """
    SELECT count(*) FROM asyncproc.tick t LEFT JOIN asyncproc.task_done d ON d.id = t.task_id
    WHERE t.outcome <> 'task' OR d.id IS NULL OR d.state <> 'succeeded' OR d.attempt <> 1
    OR (d.result #>> '{}')::timestamptz <> t.due_at
"""
# The same where nobody runs the tasks.
WRONG_APART: Final = """
    SELECT count(*) FROM asyncproc.tick t LEFT JOIN asyncproc.task_live l ON l.id = t.task_id
    WHERE t.outcome <> 'task' OR l.id IS NULL
"""
COUNT: Final = "SELECT count(*) FROM asyncproc.tick"
# Ticks that a schedule should have had between its first and its last one.
MISSING: Final = """
    SELECT coalesce(sum(extract(epoch FROM last - first) + 1 - n), 0)::int FROM (
        SELECT min(due_at) AS first, max(due_at) AS last, count(DISTINCT due_at) AS n
        FROM asyncproc.tick GROUP BY schedule
    ) s
"""
TASKS: Final = """
    SELECT (SELECT count(*) FROM asyncproc.task_done WHERE starts_with(created_by, 'schedule tick-')),
        (SELECT count(*) FROM asyncproc.task_live WHERE starts_with(created_by, 'schedule tick-')),
        (SELECT count(*) FROM asyncproc.tick)
"""
LATE: Final = """
    SELECT percentile_cont(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP (ORDER BY extract(epoch FROM decided_at - due_at))
    FROM asyncproc.tick
"""


@dataclass(frozen=True, slots=True)
class Account:
    ticks: int
    tasks: int
    doubled: int
    missing: int
    wrong: int
    late_s: list[float]
    """Half of the ticks were decided within so much time, 99 of 100, and all."""

    @property
    def adds_up(self) -> bool:
        return self.ticks == self.tasks and not (self.doubled or self.missing or self.wrong)


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos.ticks", description=__doc__)
    parser.add_argument("--schedules", type=int, default=SCHEDULES, help="each has a tick a second")
    parser.add_argument("--ticks", type=int, default=TICKS, help="at least")
    parser.add_argument("--kills", type=int, default=KILLS, help="of the QueueActor, spread over them")
    parser.add_argument("--apart", action="store_true", help="core and storage alone: no task is run")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sizes = (arguments.schedules, arguments.ticks, arguments.kills)
    if arguments.apart:
        account = run_apart(*sizes)
    else:
        with system(workers=2) as the_system:
            account = run(the_system, *sizes)
    late = " / ".join(f"{seconds:.3f}" for seconds in account.late_s)
    print(
        f"{account.ticks:,} ticks, {account.tasks:,} tasks: doubled {account.doubled}, missing {account.missing},"
        f" wrong {account.wrong}; late by (p50 / p99 / most) {late} s"
    )
    return 0 if account.adds_up else 1


def run(the_system: System, schedules: int, ticks: int, kills: int) -> Account:
    with httpx.Client(base_url=the_system.url, timeout=60) as client:
        names = [f"{_PREFIX}{number}" for number in range(schedules)]
        began = monotonic()
        for _ in _all(client, "POST", (("/schedules", _body(name)) for name in names)):
            pass
        print(f"{schedules:,} schedules created in {monotonic() - began:.1f} s", flush=True)
        killed = 0
        while (made := _ticks(the_system)) < ticks or killed < kills:
            if made >= (killed + 1) * ticks // (kills + 1) and killed < kills:
                the_system.only(QUEUE).kill()
                killed += 1
                print(f"{made:,} ticks: killed {killed} of {kills}", flush=True)
                until(lambda: _ticks(the_system) > made + schedules, 60, "ticks after a kill")
            time.sleep(0.2)
        for _ in _all(client, "POST", ((f"/schedules/{name}/pause", {}) for name in names)):
            pass
        until(lambda: the_system.query(TASKS)[0][1] == 0, SETTLE_S, "the end of all tasks")
    return account_of(the_system.query, WRONG)


def run_apart(schedules: int, ticks: int, kills: int) -> Account:
    """A process of its own that is killed wherever it is."""
    with tempfile.TemporaryDirectory(prefix="ap-ticks-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        conninfo = postgres.start()

        def query(text: str) -> list[Any]:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                return connection.execute(text.encode()).fetchall()

        command = [sys.executable, "-m", "chaos.apart", conninfo, str(wall_now()), str(SPEED), str(schedules)]
        try:
            asyncio.run(migrate(conninfo))
            process, killed = subprocess.Popen(command), 0
            while (made := query(COUNT)[0][0]) < ticks or killed < kills:
                if made >= (killed + 1) * ticks // (kills + 1) and killed < kills:
                    process.kill()
                    process.wait()
                    killed += 1
                    print(f"{made:,} ticks: killed {killed} of {kills}", flush=True)
                    process = subprocess.Popen(command)
                time.sleep(0.1)
            process.kill()
            process.wait()
            return account_of(query, WRONG_APART)
        finally:
            postgres.stop()


def account_of(query: Callable[[str], list[Any]], wrong_ones: str) -> Account:
    ((done, live, ticks),) = query(TASKS)
    ((doubled,),) = query(DOUBLED)
    ((wrong,),) = query(wrong_ones)
    ((missing,),) = query(MISSING)
    ((late_s,),) = query(LATE)
    return Account(ticks, done + live, doubled, missing, wrong, late_s)


def _body(name: str) -> dict[str, object]:
    return {"name": name, "taskType": "Tick", "every": "1s", "instantField": "at", "catchUp": "all"}


def _all(
    client: httpx.Client, method: str, requests: Iterator[tuple[str, dict[str, object]]]
) -> Iterator[httpx.Response]:
    """Some at a time; each once more where the answer says to come again."""

    def ask(request: tuple[str, dict[str, object]]) -> httpx.Response:
        path, body = request
        for _ in range(100):
            response = client.request(method, path, json=body)
            if response.status_code not in (429, 503):
                break
            time.sleep(0.1)
        # One whose answer was lost is there already.
        if response.status_code != 409:
            response.raise_for_status()
        return response

    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(ask, requests)


def _ticks(the_system: System) -> int:
    return int(the_system.query(COUNT)[0][0])


if __name__ == "__main__":
    sys.exit(main())
