"""Workers on several nodes: one is killed under load, another is cut off and comes back."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import pytest
import ray
from ray._private import worker as ray_worker
from ray.cluster_utils import Cluster
from ray.exceptions import RayError

from asyncproc.actors.spread import living_nodes
from asyncproc.core.states import State
from asyncproc.pool_precedence import pools_of
from asyncproc.rules import Stored
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System, pid_of
from tests.eventually import eventually

OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024
SOON: Final = {"poll": "1s", "silence": "2s"}
"""A node that says nothing is given up long before Ray itself gives it up."""


class Nodes:
    """Further nodes of the Ray of the run, each with processes of its own."""

    def __init__(self, number: int) -> None:
        self._cluster = Cluster(shutdown_at_exit=False)
        # The driver started it; what Ray's utilities start joins it.
        self._cluster.head_node = ray_worker._global_node
        for _ in range(number):
            self._cluster.add_node(wait=False, num_cpus=4, object_store_memory=OBJECT_STORE_BYTES)
        eventually(lambda: len(self.alive()) == number + 1)

    def alive(self) -> set[str]:
        return set(living_nodes())

    def others(self) -> dict[str, Any]:
        """By id, without the one of the QueueActor."""
        return {node.node_id: node for node in self._cluster.worker_nodes}

    def processes(self, node_id: str) -> list[psutil.Process]:
        """Its raylet and what that one started, the workers among them."""
        (raylet,) = self.others()[node_id].all_processes["raylet"]
        root = psutil.Process(raylet.process.pid)
        return [root, *root.children(recursive=True)]

    def freeze(self, node_id: str) -> None:
        for process in self.processes(node_id):
            process.send_signal(signal.SIGSTOP)

    def thaw(self, node_id: str) -> None:
        for process in self.processes(node_id):
            process.send_signal(signal.SIGCONT)

    def kill(self, node_id: str) -> None:
        processes = self.processes(node_id)
        for process in processes:
            process.kill()
        self._cluster.remove_node(self.others()[node_id], allow_graceful=False)
        psutil.wait_procs(processes)

    def close(self) -> None:
        for node_id in self.others():
            self.kill(node_id)


@pytest.fixture(scope="module")
def nodes(ray_cluster: None) -> Iterator[Nodes]:
    with ExitStack() as stack:
        found = Nodes(2)
        stack.callback(found.close)
        yield found


def test_a_node_that_is_cut_off_is_given_up_and_its_late_results_are_refused(
    deploy: Deploy, nodes: Nodes, ledger: Ledger, gate: Path
) -> None:
    system = deploy(queue={"workerPoolSize": 3, **SOON})
    where = _spread(system, nodes)
    cut_off = next(iter(nodes.others()))
    (silent,) = [worker for worker, node_id in where.items() if node_id == cut_off]
    tasks = system.enqueue("Hold", *({"ledger": ledger.path, "n": n, "gate": str(gate)} for n in range(3)))
    (victim,) = [
        trace for trace in eventually(lambda: ledger.traces()[2:] and ledger.traces()) if trace.worker == silent
    ]

    nodes.freeze(cut_off)
    try:
        task = tasks[victim.n]
        eventually(lambda: system.task(task).state is State.QUEUED, within_s=30)
        gate.touch()
        again = system.ended(task)
    finally:
        nodes.thaw(cut_off)

    assert again.state is State.SUCCEEDED
    assert again.worker != silent
    # The one that was cut off goes on where it stood, is refused, and works again.
    eventually(lambda: system.is_whole(epoch=1))
    after = system.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in range(3, 303)))
    eventually(lambda: {system.task(task).worker for task in after} >= {silent})
    eventually(lambda: system.states() == {State.SUCCEEDED: 303})
    assert (system.task(task).worker, system.task(task).attempt) == (again.worker, 1)
    assert ledger.runs() == Counter(range(303)) + Counter([victim.n])


def test_a_node_is_killed_under_load_and_nothing_is_lost(deploy: Deploy, nodes: Nodes, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 3, **SOON})
    where = _spread(system, nodes)
    queue = pid_of(system.queue())
    victim = next(iter(nodes.others()))
    aboard = [worker for worker, node_id in where.items() if node_id == victim]
    system.enqueue("Work", *({"ledger": ledger.path, "n": n, "seconds": 0.02} for n in range(400)))
    eventually(lambda: {where[trace.worker] for trace in ledger.traces()} == nodes.alive())

    nodes.freeze(victim)
    ran = _running(system, aboard)
    nodes.kill(victim)

    eventually(lambda: _running(system, aboard) == set(), within_s=30)
    eventually(lambda: system.states() == {State.SUCCEEDED: 400})
    assert set(ledger.runs()) == set(range(400))
    assert sum(ledger.runs().values()) - 400 <= len(ran)
    assert pid_of(system.queue()) == queue, "it lives on the head"
    assert victim not in {where[trace.worker] for trace in ledger.traces()[-100:] if trace.worker in where}


def _spread(system: System, nodes: Nodes) -> dict[str, str]:
    """The node of each worker, once each node has its share of them."""
    even = sum(pool.least for pool in pools_of(system.settings, Stored()).values()) // len(nodes.alive())

    def look() -> dict[str, str]:
        where = _places(system)
        return where if Counter(where.values()) == dict.fromkeys(nodes.alive(), even) else {}

    return eventually(look)


def _places(system: System) -> dict[str, str]:
    """The node of each worker."""

    def ask(_: object) -> str:
        return str(ray.get_runtime_context().get_node_id())

    found = {}
    for name, handle in system.workers().items():
        # One that moves to another node is on its way out.
        with suppress(RayError):
            found[name] = ray.get(handle.__ray_call__.remote(ask))
    return found


def _running(system: System, workers: list[str]) -> set[bytes]:
    text = "SELECT id FROM asyncproc.task_live WHERE state = 'running' AND worker = ANY(%s)"
    with psycopg.connect(system.deployment.conninfo) as connection:
        return {row[0].bytes for row in connection.execute(text, (workers,))}
