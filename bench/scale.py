"""`python -m bench.scale`: what events cost the QueueActor and Postgres, by CPU time; writes bench/scale.json.

The inputs of `python -m simulation.shards`. CPU time hardly depends on what else the machine does.
"""

import asyncio
import gc
import json
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

from asyncproc.core.decision import Decision, PollReply
from asyncproc.core.events import SUCCEEDED, Enqueued, Event, Outcome, Polled, Registered
from asyncproc.core.settings import CoreSettings
from asyncproc.core.step import Core
from asyncproc.core.task import NO_TERMS, Options
from asyncproc.storage.batch import build
from bench.machine import PARKED, Machine, actors, machine, postgres_of, query
from bench.rows import held, no_ops, send, wait_until_done, warm_up
from simulation.world import NOON, ONCE
from tests.deployed import System

FOUND: Final = Path(__file__).parent / "scale.json"
CROWDS: Final = (10, 100, 1_000)
"""Workers that are registered while the core is measured."""
IDLE: Final = 1_000
"""Workers that ask the real QueueActor for tasks and get none."""
IDLE_S: Final = 120.0
OFTEN: Final = 200
"""Workers that ask once a second: what one exchange costs."""
OFTEN_S: Final = 20.0
SINGLES: Final = 1_000
ROWS: Final = 40_000


# ---- the core alone


class _Crowd:
    """A core, and workers of one slot that all hold a poll open."""

    def __init__(self, workers: int) -> None:
        gc.collect()
        self.core = Core(CoreSettings())
        self.core.run_times.observe("Work", 1.0)
        self._tickets, self._ids, self.now = count(1), count(1), NOON
        self._options = Options("Work", "default", 0, ONCE, "bench")
        self.names = [f"w{number}" for number in range(workers)]
        for name in self.names:
            self.step(Registered(next(self._tickets), name, "default", 1, []))
            self.poll(name)

    def step(self, *events: Event) -> Decision:
        self.now += 1e-5
        return self.core.step(events, self.now)

    def poll(self, name: str, *outcomes: Outcome) -> None:
        session = self.core.workers[name].session
        build(self.step(Polled(next(self._tickets), name, session, list(outcomes))).writes, self.now)

    def rest(self) -> None:
        """All polls are answered, for nothing came, and all workers ask again."""
        while self.core.workers[self.names[0]].polls:
            self.now = max(self.now, self.step().wake_at or self.now)
        for name in self.names:
            self.poll(name)

    def enqueue(self) -> Outcome:
        """A task comes and goes to a worker that waits; how it will end."""
        new = (next(self._ids).to_bytes(16), b"{}", self._options, 0.0, NO_TERMS)
        decision = self.step(Enqueued(next(self._tickets), [new]))
        build(decision.writes, self.now)
        (lease,) = next(reply.leases for reply in decision.replies if isinstance(reply, PollReply) and reply.leases)
        return (lease[0], lease[1], SUCCEEDED, b"null", "", 1.0, 0.0, [])

    def end(self, outcome: Outcome) -> None:
        worker = self.core.tasks[outcome[0]].worker
        self.poll(worker, outcome)
        self.poll(worker)


def of_the_core(workers: int, rounds: int = 2_000) -> dict[str, float]:
    """Microseconds of CPU that the step takes for each kind of event, with so many workers registered."""
    crowd, rests = _Crowd(workers), max(1, rounds // workers)
    marks = [time.process_time()]
    for _ in range(rounds):
        crowd.step()
    marks.append(time.process_time())
    for _ in range(rests):
        crowd.rest()
    marks.append(time.process_time())
    found = {"nothing": (marks[1] - marks[0]) / rounds, "idle_poll": (marks[2] - marks[1]) / (rests * workers)}
    found.update(enqueue_and_lease=0.0, report_and_poll=0.0)
    for _ in range(rests):
        marks = [time.process_time()]
        outcomes = [crowd.enqueue() for _ in crowd.names]
        marks.append(time.process_time())
        for outcome in outcomes:
            crowd.end(outcome)
        marks.append(time.process_time())
        found["enqueue_and_lease"] += (marks[1] - marks[0]) / (rests * workers)
        found["report_and_poll"] += (marks[2] - marks[1]) / (rests * workers)
    return {name: round(1e6 * value, 1) for name, value in found.items()}


# ---- the QueueActor itself


class Watch:
    """CPU seconds of the QueueActor and of Postgres, and bytes of WAL, since it was made."""

    def __init__(self, system: System) -> None:
        self._system = system
        _, postgres = postgres_of(system)
        self._groups = {"queue_actor": actors(system)[:1], "postgres": postgres}
        self._at, self._before = time.monotonic(), self._now()

    def _now(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, group in self._groups.items():
            times = [process.cpu_times() for process in group if process.is_running()]
            found[name] = sum(each.user + each.system for each in times)
        return {**found, "wal_bytes": float(query(self._system, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0])}

    def per(self, number: float) -> dict[str, float]:
        """Microseconds of CPU, and bytes, for each of so many events."""
        now = self._now()
        spent = {name: now[name] - before for name, before in self._before.items()}
        return {name: value * (1 if name == "wal_bytes" else 1e6) / number for name, value in spent.items()}

    def share(self) -> float:
        """Of a core, that the QueueActor took."""
        return (self._now()["queue_actor"] - self._before["queue_actor"]) / (time.monotonic() - self._at)


async def _crowd(system: System, workers: int, seconds: float, known: bool) -> tuple[int, float]:
    """Workers that ask and get nothing; returns how often they asked, and the share of a core that all of it took.

    `known`: they bear the mark of the QueueActor's own code, so that it may let them wait for longer.
    """
    queue, asked = system.queue(), 0
    mark = system.deployment.fingerprint if known else "other"

    async def live(number: int) -> None:
        nonlocal asked
        name = f"default-{number}.{mark}"
        _, session, _ = await queue.register.remote(name, "default", 1, [], 0, None)
        while True:
            _, leases, *_ = await queue.poll.remote(name, session, [], [])
            assert leases == [], leases
            asked += 1

    living = [asyncio.ensure_future(live(1_000 + number)) for number in range(workers)]
    await asyncio.sleep(15.0)
    before, watch = asked, Watch(system)
    await asyncio.sleep(seconds)
    share, number = watch.share(), asked - before
    assert not any(each.done() for each in living), "a worker was turned away"
    for each in living:
        each.cancel()
    await asyncio.gather(*living, return_exceptions=True)
    return number, share


def of_idle_workers(the_machine: Machine, workers: int, seconds: float) -> dict[str, float]:
    """Percent of a core that the QueueActor takes beside two real workers, and with simulated ones that only wait;
    the same where each is answered after `queue.poll`."""
    with the_machine.system() as system:
        warm_up(the_machine, system)
        _, alone = asyncio.run(_crowd(system, 0, seconds / 2, known=True))
        number, share = asyncio.run(_crowd(system, workers, seconds, known=True))
    with the_machine.system() as system:
        warm_up(the_machine, system)
        often, in_haste = asyncio.run(_crowd(system, workers, seconds / 2, known=False))
    return {
        "alone": 100 * alone,
        "with_them": 100 * share,
        "polls_per_s": number / seconds,
        "every_10_s": 100 * in_haste,
        "every_10_s_polls_per_s": 2 * often / seconds,
    }


def of_one_exchange(the_machine: Machine, workers: int, seconds: float) -> float:
    """Microseconds of CPU that a poll takes the QueueActor, from call to answer, where it is answered with nothing."""
    with the_machine.system(queue={"poll": "1s"}) as system:
        warm_up(the_machine, system)
        _, alone = asyncio.run(_crowd(system, 0, seconds, known=False))
        number, share = asyncio.run(_crowd(system, workers, seconds, known=False))
    return 1e6 * (share - alone) * seconds / number


def of_tasks(the_machine: Machine, rows: int, singles: int) -> dict[str, dict[str, float]]:
    """CPU of QueueActor and Postgres for a commit of one row, a row among many, and a run of a task."""
    found: dict[str, dict[str, float]] = {}
    with the_machine.system() as system:
        warm_up(the_machine, system)
        watch = Watch(system)
        send(system, no_ops(system, singles, per_call=1, queue=PARKED), at_once=1)
        found["commit"] = watch.per(singles)
        watch = Watch(system)
        send(system, no_ops(system, rows, queue=PARKED))
        found["enqueue"] = watch.per(rows)
        with held(system) as let_go:
            send(system, no_ops(system, rows))
            watch = Watch(system)
            let_go()
            wait_until_done(system, rows)
        found["run"] = watch.per(rows)
    return {name: {part: round(value, 1) for part, value in parts.items()} for name, parts in found.items()}


def main() -> None:
    found: dict[str, Any] = {"core_us": {str(number): of_the_core(number) for number in CROWDS}}
    print(json.dumps(found), flush=True)
    with machine() as the_machine:
        found["task"] = of_tasks(the_machine, ROWS, SINGLES)
        print(json.dumps(found["task"]), flush=True)
        found["exchange_us"] = round(of_one_exchange(the_machine, OFTEN, OFTEN_S), 1)
        print(found["exchange_us"], flush=True)
        idle = of_idle_workers(the_machine, IDLE, IDLE_S)
        found["idle_1000"] = {name: round(value, 2) for name, value in idle.items()}
    FOUND.write_text(json.dumps(found, indent=2) + "\n")
    print(FOUND.read_text())


if __name__ == "__main__":
    main()
