"""Which worker is to move to another node, so that nodes that join get their share."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import ray

LEVEL_S: Final = 2.0
"""How often it is looked whether nodes have joined: one worker of a pool moves at a time."""


class Spread:
    """Where the workers are, and where the next one of a place is wanted."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}
        """By worker; of one that moves the node where its successor will be."""
        self._towards: dict[str, str] = {}

    def is_on(self, worker: str, node: str) -> None:
        self._nodes[worker] = node

    def gone(self, worker: str) -> None:
        self._nodes.pop(worker, None)

    def wanted(self, place: str) -> str | None:
        """The node to start the next worker of a place on, asked once; None where any will do."""
        return self._towards.pop(place, None)

    def moves(self, workers: Collection[str], pools: Iterable[str]) -> list[str]:
        """Those that are to leave now, so that the next ones of their places are better off. Of these pools alone."""
        nodes = living_nodes()
        if len(nodes) < 2:
            return []
        leaving = []
        for pool in pools:
            members = [name for name in workers if name.rpartition("-")[0] == pool]
            # One that has yet to come up may make all even.
            if all(name in self._nodes for name in members):
                move = next_move({name: self._nodes[name] for name in members}, nodes)
                if move is not None:
                    name, node = move
                    self._nodes[name] = self._towards[name.rpartition(".")[0]] = node
                    leaving.append(name)
        return leaving


def next_move(places: Mapping[str, str], cpus: Mapping[str, float]) -> tuple[str, str] | None:
    """A worker and the node where it is better off; None where all is as even as it gets.

    `places` is the node of each worker, `cpus` what each living node has. One without a CPU is for others than workers,
    as long as there is one with some.
    """
    able = {node: number for node, number in cpus.items() if number > 0} or dict.fromkeys(cpus, 1.0)
    on = Counter(places.values())
    to = min(able, key=lambda node: (on[node] + 1) / able[node], default=None)
    if to is None:
        return None
    after = (on[to] + 1) / able[to]

    def relief(worker: str) -> float:
        """How much fuller its node is than the other one would be."""
        node = places[worker]
        return on[node] / able[node] - after if node in able else float("inf")

    # A node that is gone takes its workers along without our doing.
    movable = [worker for worker, node in places.items() if node in cpus]
    worker = max(movable, key=relief, default=None)
    return None if worker is None or relief(worker) <= 0 else (worker, to)


def living_nodes() -> dict[str, float]:
    """CPUs by node."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray does not annotate it
    return {str(node["NodeID"]): float(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]}
