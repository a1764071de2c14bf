"""python -m simulation.scale: queues that move between shards, and what so many shards carry.

Exit status: 0 where every rule held and every mutant was caught, 1 where not.
"""

import argparse
import sys
from dataclasses import replace
from typing import Final

from simulation.capacity import Costs, Load, most
from simulation.mutant_shards import MUTANTS, hunt
from simulation.rules import Violation
from simulation.shards import World

SHARDS: Final = (1, 2, 4, 8, 16)
KINDS: Final = {
    "1,000 workers of one slot, tasks of 5 ms": Load(1),
    "1,000 workers of one slot, tasks of 0.2 ms": Load(1, run_s=0.0002),
    "128 workers of eight slots, tasks of 5 ms": Load(1, workers=128, slots=8),
    "the same, worked ahead for 300 ms": Load(1, workers=128, slots=8, prefetch_s=0.3),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.scale", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=1_000, metavar="N", help="histories of queues that move")
    parser.add_argument("--no-tables", action="store_true", help="only those")
    given = parser.parse_args(arguments)
    if not (_histories(given.seeds) and _mutants(given.seeds)):
        return 1
    if not given.no_tables:
        _tables(Costs.measured())
    return 0


def _histories(seeds: int) -> bool:
    tasks = moves = takeovers = 0
    for seed in range(seeds):
        try:
            world = World(seed).run()
        except Violation as violation:
            print(f"seed {seed}: {violation}", file=sys.stderr)
            return False
        tasks, moves, takeovers = tasks + len(world.starts), moves + world.moves, takeovers + world.takeovers
    print(
        f"{seeds:,} histories: {tasks:,} tasks, {moves:,} moves of queues, {takeovers:,} reigns;"
        " lost 0, run twice 0, never two homes"
    )
    return True


def _mutants(seeds: int) -> bool:
    caught = {name: hunt(name, range(seeds)) for name in MUTANTS}
    for name, found in caught.items():
        print(f"{name:24} {'SURVIVES' if found is None else f'seed {found[0]}: {found[1]}'}")
    return all(caught.values())


def _tables(costs: Costs) -> None:
    for title, load in KINDS.items():
        print(f"\n{title}; in one second\n")
        print(
            "| shards | tasks | of each: tasks | exchanges | commits | QueueActor | Postgres | WAL | wait, p50 / p99 |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for shards in SHARDS:
            rate, found = most(replace(load, shards=shards), costs)
            figures = (
                f"{shards} | {rate:,.0f} | {rate / shards:,.0f} | {found.exchanges:,.0f} | {found.commits:,.0f}"
                f" | {found.queue_actor:.0%} | {found.postgres:.0%} | {found.wal_mb:.1f} MB"
                f" | {found.wait_ms[0]:.0f} / {found.wait_ms[1]:.0f} ms"
            )
            print(f"| {figures} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
