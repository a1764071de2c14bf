"""Which worker is to move to another node, so that nodes that join get their share."""

from collections import Counter
from collections.abc import Mapping


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
