"""What so many QueueActors carry: the real core and what is asked of it, in simulated time, at the measured costs.

Each shard has a QueueActor, which has one core for all it does; a writing connection of a Postgres of its
own, which has one too; and its share of the workers, which have as many as they need. Costs are those that
`python -m bench.scale` found.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from asyncproc.core.decision import Decision, EnqueueReply, PollReply, RegisterReply
from asyncproc.core.events import SUCCEEDED, Enqueued, Event, Lease, Outcome, Polled, Registered
from asyncproc.core.settings import CoreSettings
from asyncproc.core.step import Core
from asyncproc.core.task import NO_TERMS, NewTask, Options, TaskId
from simulation.agenda import NOON, Agenda
from simulation.world import ONCE

MEASURED: Final = Path(__file__).parent.parent / "bench" / "scale.json"
WIRE_S: Final = 0.0005
"""Of one way between two processes, besides the CPU that it takes."""
FSYNC_S: Final = 0.0012
FLUSH_S: Final = 0.005
"""As `FLUSH_S` of `actors/conversation.py`."""
CALLS: Final = 100
"""Enqueue calls that the clients of a shard have open at most."""
LONG_MS: Final = 500.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of CPU, and bytes."""

    exchange: float
    """A call from and to a QueueActor."""
    cycle: float
    """A step and a commit, besides their rows."""
    enqueued: float
    """A row that comes."""
    run: float
    """The same row: claimed, ended and moved."""
    pg_cycle: float
    pg_enqueued: float
    pg_run: float
    wal: float
    """Bytes that a task writes in all."""

    @classmethod
    def measured(cls, path: Path = MEASURED) -> "Costs":
        return cls.of(json.loads(path.read_text()))

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Costs":
        task: Mapping[str, Mapping[str, float]] = found["task"]
        exchange = float(found["exchange_us"])
        return cls(
            exchange=exchange / 1e6,
            cycle=max(0.0, task["commit"]["queue_actor"] - exchange) / 1e6,
            enqueued=task["enqueue"]["queue_actor"] / 1e6,
            run=task["run"]["queue_actor"] / 1e6,
            pg_cycle=task["commit"]["postgres"] / 1e6,
            pg_enqueued=task["enqueue"]["postgres"] / 1e6,
            pg_run=task["run"]["postgres"] / 1e6,
            wal=task["enqueue"]["wal_bytes"] + task["run"]["wal_bytes"],
        )


@dataclass(frozen=True, slots=True)
class Load:
    """What all shards get together."""

    shards: int
    workers: int = 1_000
    slots: int = 1
    tasks_a_second: float = 100_000.0
    run_s: float = 0.005
    tasks_a_call: int = 100
    prefetch_s: float = CoreSettings().prefetch_s
    backlog: int = 0
    """Of each shard: what waits from the beginning."""


@dataclass(slots=True)
class Found:
    """Of one shard, but for `done`, which is of all."""

    done: float
    """Tasks a second."""
    exchanges: float
    commits: float
    queue_actor: float
    """Share of a core."""
    postgres: float
    wal_mb: float
    """Each second."""
    wait_ms: tuple[float, float]
    """From the call to enqueue to the start: the middle, and 99 of 100."""
    workers: float
    """Share of the time in which their slots run something."""

    def keeps_up(self, load: Load) -> bool:
        """And not by letting tasks wait for longer and longer."""
        return self.done > 0.95 * load.tasks_a_second and self.wait_ms[0] < LONG_MS

    def fullest(self) -> str:
        parts = {"QueueActor": self.queue_actor, "Postgres": self.postgres, "workers": self.workers}
        return max(parts, key=lambda part: parts[part])


class _Cpu:
    """One core that does one thing after the other."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._free_at = agenda.now
        self.used_s = 0.0

    def do(self, seconds: float, then: Callable[..., None], *args: Any) -> None:
        self._free_at = max(self._free_at, self._agenda.now) + seconds
        self.used_s += seconds
        self._agenda.after(self._free_at - self._agenda.now, then, *args)


@dataclass(slots=True, eq=False)
class _Worker:
    name: str
    session: int = 0
    line: deque[TaskId] = field(default_factory=deque)
    leases: dict[TaskId, int] = field(default_factory=dict)
    ended: list[Outcome] = field(default_factory=list)
    running: int = 0
    reporting: bool = False
    timed: bool = False


class _Shard:
    def __init__(self, agenda: Agenda, costs: Costs, load: Load) -> None:
        self.agenda, self.costs, self.load = agenda, costs, load
        self.cpu, self.postgres = _Cpu(agenda), _Cpu(agenda)
        self.core = Core(CoreSettings(prefetch_s=load.prefetch_s, window=1_000_000))
        self.core.run_times.observe("Work", load.run_s)
        self.exchanges = self.commits = self.done = 0
        self.busy_s = 0.0
        self.waits: list[float] = []
        self._tickets, self._ids = count(1), count(1)
        self._inbox: list[Event] = []
        self._turning = False
        self._calls: dict[int, Callable[[Any], None]] = {}
        self._options = Options("Work", "default", 0, ONCE, "capacity")
        self._made_at: dict[TaskId, float] = {}
        self._open = 0
        if load.backlog:
            self.core.step([Enqueued(next(self._tickets), self._tasks(load.backlog))], agenda.now)
        for number in range(load.workers // load.shards):
            self._settle(_Worker(f"w{number}"))
        if load.tasks_a_second:
            self._offer()

    # ---- calls and cycles

    def _call(self, make: Callable[[int], Event], answered: Callable[[Any], None]) -> None:
        ticket = next(self._tickets)
        self._calls[ticket] = answered
        self.exchanges += 1
        self.agenda.after(WIRE_S, self.cpu.do, self.costs.exchange, self._arrived, make(ticket))

    def _arrived(self, event: Event) -> None:
        self._inbox.append(event)
        if not self._turning:
            self._turning = True
            self.cpu.do(0.0, self._turn)

    def _turn(self) -> None:
        events, self._inbox = self._inbox, []
        decision = self.core.step(events, self.agenda.now)
        costs, writes = self.costs, decision.writes
        new, ended = len(writes.inserts), len(writes.succeeded)
        is_written = bool(writes)
        self.commits += is_written
        cpu_s = is_written * costs.cycle + new * costs.enqueued + ended * costs.run
        pg_s = is_written * (costs.pg_cycle) + new * costs.pg_enqueued + ended * costs.pg_run
        self.cpu.do(cpu_s, self.postgres.do, pg_s, self._synced, decision, is_written)

    def _synced(self, decision: Decision, is_written: bool) -> None:
        self.agenda.after(FSYNC_S if is_written else 0.0, self._committed, decision)

    def _committed(self, decision: Decision) -> None:
        self.done += len(decision.writes.succeeded)
        for reply in decision.replies:
            self.agenda.after(WIRE_S, self._calls.pop(reply.ticket), reply)
        self._turning = bool(self._inbox)
        if self._turning:
            self.cpu.do(0.0, self._turn)
        elif decision.wake_at is not None and decision.wake_at <= self.agenda.now:
            self._turning = True
            self.agenda.after(1e-4, self._turn)

    # ---- clients

    def _offer(self) -> None:
        """As many calls as the rate asks for; one that finds no room is not made at all."""
        load = self.load
        gap_s = load.tasks_a_call * load.shards / load.tasks_a_second
        self.agenda.after(gap_s, self._offer)
        if self._open < CALLS:
            self._open += 1
            tasks = self._tasks(load.tasks_a_call)
            self._call(lambda ticket: Enqueued(ticket, tasks), self._enqueued)

    def _tasks(self, number: int) -> list[NewTask]:
        ids = [next(self._ids).to_bytes(16) for _ in range(number)]
        self._made_at.update(dict.fromkeys(ids, self.agenda.now))
        return [(task_id, b"", self._options, 0.0, NO_TERMS) for task_id in ids]

    def _enqueued(self, reply: EnqueueReply) -> None:
        self._open -= 1

    # ---- workers

    def _settle(self, worker: _Worker) -> None:
        """It has been there for long, and waits; that costs nothing here, unless there is something to take at once."""
        registered = Registered(next(self._tickets), worker.name, "default", self.load.slots, [])
        (reply,) = self.core.step([registered], self.agenda.now).replies
        assert isinstance(reply, RegisterReply)
        worker.session, ticket = reply.session, next(self._tickets)
        if self.load.backlog:
            self._listen(worker)
            return
        self.core.step([Polled(ticket, worker.name, worker.session, [])], self.agenda.now)
        self._calls[ticket] = partial(self._heard, worker)

    def _listen(self, worker: _Worker) -> None:
        ended, worker.ended = worker.ended, []
        self._call(lambda ticket: Polled(ticket, worker.name, worker.session, ended), partial(self._heard, worker))

    def _heard(self, worker: _Worker, reply: PollReply) -> None:
        self._take(worker, reply.leases or [])
        self._listen(worker)

    def _take(self, worker: _Worker, leases: list[Lease]) -> None:
        for lease in leases:
            worker.leases[lease[0]] = lease[1]
            worker.line.append(lease[0])
        self._work(worker)

    def _work(self, worker: _Worker) -> None:
        while worker.line and worker.running < self.load.slots:
            worker.running += 1
            task_id = worker.line.popleft()
            self.waits.append(self.agenda.now - self._made_at.pop(task_id))
            self.agenda.after(self.load.run_s, self._end, worker, task_id)

    def _end(self, worker: _Worker, task_id: TaskId) -> None:
        worker.running -= 1
        self.busy_s += self.load.run_s
        lease = worker.leases.pop(task_id)
        worker.ended.append((task_id, lease, SUCCEEDED, b"", "", self.load.run_s, 0.0, []))
        self._work(worker)
        if not worker.running:
            self._report(worker)
        elif not worker.timed:
            worker.timed = True
            self.agenda.after(FLUSH_S, self._report, worker)

    def figures(self) -> tuple[float, ...]:
        return (self.done, self.exchanges, self.commits, self.cpu.used_s, self.postgres.used_s, self.busy_s)

    def _report(self, worker: _Worker) -> None:
        worker.timed = False
        if worker.reporting or not worker.ended:
            return
        worker.reporting = True
        ended, worker.ended = worker.ended, []

        def answered(reply: PollReply) -> None:
            worker.reporting = False
            self._take(worker, reply.leases or [])
            self._report(worker)

        self._call(lambda ticket: Polled(ticket, worker.name, worker.session, ended), answered)


def carry(load: Load, costs: Costs, warm_s: float = 2.0, seconds: float = 2.0) -> Found:
    """What one shard does with its share: they have nothing in common, so it stands for all of them."""
    agenda = Agenda()
    shard = _Shard(agenda, costs, load)
    agenda.run(NOON + warm_s)
    before = shard.figures()
    shard.waits.clear()
    agenda.run(NOON + warm_s + seconds)
    spent = [(now - was) / seconds for was, now in zip(before, shard.figures(), strict=True)]
    done, exchanges, commits, cpu, postgres, busy = spent
    waits = sorted(shard.waits) or [0.0]
    return Found(
        load.shards * done,
        exchanges,
        commits,
        min(cpu, 1.0),
        min(postgres, 1.0),
        done * costs.wal / 1e6,
        (1e3 * waits[len(waits) // 2], 1e3 * waits[len(waits) * 99 // 100]),
        busy / (load.workers // load.shards * load.slots),
    )


def most(load: Load, costs: Costs, within: float = 0.03) -> tuple[float, Found]:
    """The highest rate, of all shards together, at which they end as much as they are given."""
    fits, too_much = 0.0, load.tasks_a_second
    found = carry(load, costs)
    if found.keeps_up(load):
        return load.tasks_a_second, found
    while too_much > (1 + within) * fits + 1.0:
        tried = replace(load, tasks_a_second=(fits + too_much) / 2)
        looked_at = carry(tried, costs)
        if looked_at.keeps_up(tried):
            fits, found = tried.tasks_a_second, looked_at
        else:
            too_much = tried.tasks_a_second
    return fits, found
