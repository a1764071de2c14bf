"""Workers move to nodes that join, one of a pool at a time."""

from collections.abc import Collection, Iterable
from typing import Any, Final

import ray

from asyncproc.core.spread import next_move

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


def living_nodes() -> dict[str, float]:
    """CPUs by node."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray does not annotate it
    return {str(node["NodeID"]): float(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]}
