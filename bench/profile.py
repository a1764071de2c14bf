"""Where the microseconds of a task go: CPU by process while a backlog drains, and the parts of them alone."""

import time
from collections.abc import Callable
from typing import Any, Final

import psutil
import ray

from asyncproc.clock import TaskIds
from asyncproc.config import Settings
from asyncproc.core.decision import Decision, PollReply
from asyncproc.core.events import Enqueued, Event, Outcome, Polled, Registered
from asyncproc.core.settings import CoreSettings
from asyncproc.core.step import Core
from asyncproc.core.task import NO_LIMITS, NO_TERMS, NewTask
from asyncproc.executor import Executor
from asyncproc.registry import from_settings
from asyncproc.storage.batch import build
from bench.machine import Machine, actors, postgres_of
from bench.rows import TEXT, held, no_ops, send, wait_until_done, warm_up

NUMBER: Final = 40_000
TOP: Final = 12


def by_process(machine: Machine) -> dict[str, float]:
    """Microseconds of CPU a task in each process, while a backlog of no-ops drains."""
    with machine.system() as system:
        warm_up(machine, system)
        writer, postgres = postgres_of(system)
        queue, *workers = actors(system)
        groups = {
            "QueueActor": [queue],
            "workers": workers,
            "Postgres, the writing backend": [psutil.Process(writer)],
            "Postgres, all else": [process for process in postgres if process.pid != writer],
        }
        with held(system) as let_go:
            send(system, no_ops(system, NUMBER))
            before = {name: _cpu_s(group) for name, group in groups.items()}
            let_go()
            wait_until_done(system, NUMBER)
        return {name: 1e6 * (_cpu_s(group) - before[name]) / NUMBER for name, group in groups.items()}


def _cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def of_the_queue_actor(machine: Machine) -> list[tuple[str, float]]:
    """Functions of the QueueActor with the most time of their own, as a share of its loop's, while tasks drain."""
    with machine.system() as system:
        warm_up(machine, system)
        with held(system) as let_go:
            send(system, no_ops(system, NUMBER))
            ray.get(system.queue().__ray_call__.remote(_start_profile))
            let_go()
            wait_until_done(system, NUMBER)
        rows: list[tuple[str, float]] = ray.get(system.queue().__ray_call__.remote(_end_profile))
        return rows


def _start_profile(actor: Any) -> None:
    import cProfile

    actor.bench_profile = cProfile.Profile()
    actor.bench_profile.enable()


def _end_profile(actor: Any) -> list[tuple[str, float]]:
    import pstats
    from pathlib import Path

    actor.bench_profile.disable()
    stats: Any = pstats.Stats(actor.bench_profile)
    own = {f"{Path(file).name}:{name}": row[2] for (file, _, name), row in stats.stats.items()}
    total = sum(own.values())
    ordered = sorted(own.items(), key=lambda item: -item[1])
    return [(name, seconds / total) for name, seconds in ordered[:TOP]]


def of_the_parts(machine: Machine) -> dict[str, float]:
    """Microseconds a task of each part alone, without Ray and Postgres."""
    registry = from_settings(Settings.model_validate({"tasks": ["tasks"]}), machine.start_dir)
    tasks = _new_tasks(registry)
    core = Core(CoreSettings(window=1_000_000))
    parts: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        since = time.perf_counter()
        result = work()
        parts[name] = 1e6 * (time.perf_counter() - since) / len(tasks)
        return result

    core.step([Registered(0, "w", "default", 1, [])], 1.0)
    enqueued: Decision = timed("core.step, to enqueue", lambda: core.step([Enqueued(1, tasks)], 2.0))
    timed("batch.build, COPY", lambda: build(enqueued.writes, 2.0))
    executor = Executor(registry, "w", 1 << 20, 1 << 20, 1 << 24, {})
    leases = [(task[0], 1, 1, "NoOp", "default", task[1], 0.0, NO_LIMITS, False) for task in tasks]
    outcomes = timed("executor.run", lambda: [executor.run(lease) for lease in leases])
    decisions = timed("core.step, to grant and to end", lambda: _drain(core, outcomes))
    timed("batch.build, claims and results", lambda: [build(decision.writes, 3.0) for decision in decisions])
    return parts


def _new_tasks(registry: Any) -> list[NewTask]:
    ids, options = TaskIds(), registry.options_for("NoOp")
    return [(ids.make(), registry.validate("NoOp", TEXT), options, 0.0, NO_TERMS) for _ in range(NUMBER)]


def _drain(core: Core, outcomes: list[Outcome]) -> list[Decision]:
    ended = {outcome[0]: outcome for outcome in outcomes}
    decisions: list[Decision] = []
    report: list[Outcome] = []
    session = next(iter(core.workers.values())).session
    while True:
        events: list[Event] = [Polled(1, "w", session, report)]
        decision = core.step(events, 3.0)
        decisions.append(decision)
        granted = [lease for reply in decision.replies if isinstance(reply, PollReply) for lease in reply.leases or ()]
        report = [ended[lease[0]] for lease in granted]
        if not granted:
            return decisions
