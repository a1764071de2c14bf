"""`python -m bench.saturation`: what a QueueActor carries that never rests, beside what the model says of the same.

Its workers are simulated as far as their slots go; what they say and when is the real conversation. The costs that the
model takes are measured in between, so that both know the same machine. All of it is CPU time, for the QueueActor has
to share its core; how little it rested is known by the time that it ran or waited for one. Writes
bench/saturation.json.
"""

import asyncio
import json
import statistics
import time
from collections import deque
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import ray

from asyncproc.actors.conversation import Conversation
from asyncproc.actors.deployment import QueueHandle
from asyncproc.core.events import SUCCEEDED, Lease, Outcome
from asyncproc.core.task import TaskId
from bench.machine import Machine, machine
from bench.rows import send
from bench.scale import OFTEN, OFTEN_S, ROWS, SINGLES, Watch, of_one_exchange, of_tasks
from simulation.capacity import Costs, Load, carry
from tests.deployed import pid_of

REPORT: Final = Path(__file__).parent / "saturation.json"
CROWD: Final = "crowd"
HOMES: Final = 2
"""Processes that the simulated workers live in."""
RUN_S: Final = 0.005
ALONE_S: Final = 0.001
"""What runs for longer than `queue.prefetch` travels alone."""
WARM_S: Final = 4.0
MEASURED_S: Final = 10.0
ROUNDS: Final = 3


class Kind(NamedTuple):
    workers: int
    slots: int
    prefetch_s: float
    backlog: int
    """More than is carried in the time."""

    def load(self) -> Load:
        return Load(
            1, self.workers, self.slots, tasks_a_second=0.0, run_s=RUN_S, prefetch_s=self.prefetch_s,
            backlog=self.backlog,
        )  # fmt: skip


KINDS: Final = (
    *(Kind(workers, 1, ALONE_S, 30_000) for workers in (16, 64, 128)),
    *(Kind(workers, 8, 0.035, 250_000) for workers in (16, 64, 128)),
)


class _Slots:
    """Tasks that do nothing for a while, so many at a time."""

    def __init__(self, slots: int) -> None:
        self._slots, self._running = slots, 0
        self._line: deque[Lease] = deque()
        self._loop = asyncio.get_running_loop()
        self.conversation: Conversation
        self.done = 0

    def put(self, leases: Iterable[Lease]) -> None:
        self._line.extend(leases)
        while self._line and self._running < self._slots:
            self._running += 1
            self._loop.call_later(RUN_S, self._end, self._line.popleft())

    def take_back(self, ids: Container[TaskId] | None = None, *, gathering: bool = True) -> list[Lease]:
        taken = [lease for lease in self._line if ids is None or lease[0] in ids]
        self._line = deque(lease for lease in self._line if not (ids is None or lease[0] in ids))
        return taken

    def stop(self, attempt: tuple[TaskId, int], grace_s: float | None) -> None:
        raise AssertionError(f"nobody stops {attempt}")

    def _end(self, lease: Lease) -> None:
        self._running -= 1
        self.done += 1
        self.put(())
        outcome: Outcome = (lease[0], lease[1], SUCCEEDED, b"null", "", RUN_S, 0.0, [])
        self.conversation.ended(outcome, not self._running)


class _Counting(QueueHandle):
    asked = 0

    async def get(self) -> Any:
        self.asked += 1
        return await super().get()


class Home:
    """A process with some of the workers."""

    def __init__(self, namespace: str, first: int, workers: int, slots: int) -> None:
        self._queue = _Counting(namespace)
        self._slots: list[_Slots] = []
        self._lives: list[asyncio.Task[None]] = []
        for number in range(first, first + workers):
            mine = _Slots(slots)
            mine.conversation = conversation = Conversation(
                self._queue, f"{CROWD}-{number}.other", CROWD, slots, poll_s=10.0
            )
            self._slots.append(mine)
            life = conversation.run(mine)  # type: ignore[arg-type]
            self._lives.append(asyncio.get_running_loop().create_task(life))

    async def figures(self) -> tuple[int, int]:
        """Tasks that ended, and exchanges."""
        return sum(slots.done for slots in self._slots), self._queue.asked


def _at_work(pid: int) -> dict[str, float]:
    """Seconds in which each thread ran or wanted to."""
    found: dict[str, float] = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        ran, waited, _ = (thread / "schedstat").read_text().split()
        found[thread.name] = (int(ran) + int(waited)) / 1e9
    return found


def saturated(the_machine: Machine, kind: Kind) -> dict[str, float]:
    """A second of a QueueActor that has more to do than it can: what it carried, the share of a core that it took, and
    of the time that its busiest thread had something to do."""
    pools = {CROWD: {"queues": [CROWD], "workers": 0}}
    with the_machine.system(pools=pools, queue={"prefetch": f"{kind.prefetch_s:g}s"}) as system:
        for _ in range(0, kind.backlog, 10_000):
            send(system, [system.make("Nap", *[{"seconds": RUN_S}] * 1_000, queue=CROWD) for _ in range(10)])
        each, pid = kind.workers // HOMES, pid_of(system.queue())
        homes: list[Any] = [
            ray.remote(Home).options(num_cpus=0).remote(system.namespace, home * each, each, kind.slots)
            for home in range(HOMES)
        ]
        _figures(homes)
        time.sleep(WARM_S)
        watch, since, before, at_work = Watch(system), time.monotonic(), _figures(homes), _at_work(pid)
        time.sleep(MEASURED_S)
        share, after, seconds = watch.share(), _figures(homes), time.monotonic() - since
        busy = max(worked - at_work.get(thread, 0.0) for thread, worked in _at_work(pid).items()) / seconds
        for home in homes:
            ray.kill(home)
    done, exchanges = ((now - was) / seconds for was, now in zip(before, after, strict=True))
    assert after[0] < kind.backlog, "the backlog came to its end"
    return {"done": done, "exchanges": exchanges, "share": share, "busy": busy}


def _figures(homes: list[Any]) -> tuple[int, int]:
    found = ray.get([home.figures.remote() for home in homes])
    return sum(done for done, _ in found), sum(asked for _, asked in found)


def _middle(found: Sequence[Any]) -> Any:
    """Of each figure by itself, however deep it lies."""
    if isinstance(found[0], dict):
        return {name: _middle([each[name] for each in found]) for name in found[0]}
    return round(statistics.median(found), 3)


def _line(kind: Kind, runs: list[dict[str, float]], costs: Costs) -> dict[str, Any]:
    measured, model = _middle(runs), carry(kind.load(), costs)
    # One that had more or less than a core of its own is set against the model's, which has one.
    carried = statistics.median(run["done"] / run["share"] for run in runs)
    predicted = model.done / model.queue_actor
    return {
        **kind._asdict(),
        **measured,
        "of_a_core": round(carried, 1),
        "of_a_core_runs": [round(run["done"] / run["share"]) for run in runs],
        "exchanges_a_task": round(measured["exchanges"] / measured["done"], 3),
        "model": {
            "done": round(model.done),
            "share": round(model.queue_actor, 2),
            "of_a_core": round(predicted, 1),
            "exchanges_a_task": round(model.exchanges / model.done, 3),
        },
        "error": round(predicted / carried - 1, 3),
    }


def main() -> None:
    spent: list[dict[str, Any]] = []
    runs: dict[Kind, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with machine() as the_machine:
        for _ in range(ROUNDS):
            task = of_tasks(the_machine, ROWS, SINGLES)
            spent.append({"task": task, "exchange_us": of_one_exchange(the_machine, OFTEN, OFTEN_S)})
            print(json.dumps(spent[-1]), flush=True)
            for kind in KINDS:
                runs[kind].append(saturated(the_machine, kind))
                print(kind, runs[kind][-1], flush=True)
    print(report(spent, runs))


def report(spent: list[dict[str, Any]], runs: dict[Kind, list[dict[str, float]]]) -> str:
    costs = _middle(spent)
    kinds = [_line(kind, found, Costs.of(costs)) for kind, found in runs.items()]
    REPORT.write_text(json.dumps({"costs": costs, "kinds": kinds}, indent=2) + "\n")
    return REPORT.read_text()


if __name__ == "__main__":
    main()
