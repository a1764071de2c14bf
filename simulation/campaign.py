"""Many histories on all cores, and what came of them."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Final, TypeVar

from simulation.faults import Fault
from simulation.history import History
from simulation.mutants import MUTANTS, Caught, Mutant, by_name, hunt
from simulation.rules import Violation

CHUNK: Final = 20
ENOUGH: Final = 5
"""Violations after which no further histories are begun."""


@dataclass(frozen=True, slots=True)
class Failure:
    seed: int
    rule: str
    detail: str


@dataclass(slots=True)
class Tally:
    histories: int = 0
    steps: int = 0
    tasks: int = 0
    runs: int = 0
    again: int = 0
    """Attempts that were run again because their worker was lost."""
    fired: Counter[Fault] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.histories += other.histories
        self.steps += other.steps
        self.tasks += other.tasks
        self.runs += other.runs
        self.again += other.again
        self.fired += other.fired
        self.failures += other.failures

    def missing(self) -> list[Fault]:
        """Planned faults that never came about: a run without them proves nothing."""
        return [fault for fault in Fault if not self.fired[fault]]


def run_histories(seeds: range, processes: int | None = None) -> Tally:
    total = Tally()
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    for part in _spread(_run_chunk, chunks, processes):
        total.add(part)
        if len(total.failures) >= ENOUGH:
            break
    total.failures.sort(key=lambda failure: failure.seed)
    return total


def hunt_all(seeds: int, processes: int | None = None) -> list[tuple[Mutant, Caught | None]]:
    names = [(mutant.name, seeds) for mutant in MUTANTS]
    caught = dict(_spread(_hunt, names, processes))
    return [(mutant, caught[mutant.name]) for mutant in MUTANTS]


def _run_chunk(seeds: range) -> Tally:
    tally = Tally()
    for seed in seeds:
        tally.histories += 1
        try:
            told = History(seed).run()
        except Violation as violation:
            tally.failures.append(Failure(seed, violation.rule, violation.detail))
            continue
        tally.steps += told.steps
        tally.tasks += told.tasks
        tally.runs += told.runs
        tally.again += told.again
        tally.fired += told.fired
    return tally


def _hunt(job: tuple[str, int]) -> tuple[str, Caught | None]:
    name, seeds = job
    return name, hunt(by_name(name), seeds)


Job = TypeVar("Job")
Done = TypeVar("Done")


def _spread(work: Callable[[Job], Done], jobs: Sequence[Job], processes: int | None) -> Iterator[Done]:
    """Results as they come; what has not begun is dropped where the caller stops."""
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        futures: Iterable[Future[Done]] = [pool.submit(work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
