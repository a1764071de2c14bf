"""python -m simulation: seeded histories of the core alone, and the mutants that they must catch.

Exit status: 0 where every rule held and every mutant was caught, 1 where not, 2 where a planned fault never came about.
"""

import argparse
import sys
from time import perf_counter
from typing import Final

from simulation.campaign import Tally, hunt_all, run_histories
from simulation.history import History
from simulation.mutants import MUTANTS, by_name
from simulation.rules import Violation

HISTORIES: Final = 10_000
SEEDS_FOR_MUTANTS: Final = 2_000


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.seed is not None:
        return _one(given.seed, given.mutant, given.trace)
    histories = given.seeds
    if histories is None:
        histories = 0 if given.mutants else HISTORIES
    status = _many(histories) if histories else 0
    if given.mutants:
        status = status or _mutants(given.mutant_seeds)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, metavar="N", help=f"run N histories ({HISTORIES})")
    parser.add_argument("--seed", type=int, metavar="S", help="run the one history of this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    parser.add_argument("--mutants", action="store_true", help="run the mutants; alone, or after the --seeds")
    parser.add_argument("--mutant", choices=[mutant.name for mutant in MUTANTS], help="with --seed: run this mutant")
    parser.add_argument(
        "--mutant-seeds", type=int, default=SEEDS_FOR_MUTANTS, metavar="N", help="seeds within which it must be caught"
    )
    return parser


def _one(seed: int, mutant: str | None, trace: bool) -> int:
    write = print if trace else None
    try:
        if mutant is None:
            told = History(seed, write=write).run()
        else:
            with by_name(mutant).at_work() as cast:
                told = History(seed, cast, write=write).run()
    except Violation as violation:
        print(f"seed {seed} breaks a rule: {violation.rule}\n  {violation.detail}", file=sys.stderr)
        return 1
    print(f"seed {seed}: {told.steps} steps, {told.tasks} tasks, {told.runs} attempts, no rule broken", file=sys.stderr)
    return 0


def _many(histories: int) -> int:
    began = perf_counter()
    tally = run_histories(range(histories))
    took_s = perf_counter() - began
    print(
        f"{tally.histories:,} histories, {tally.steps:,} steps, {tally.tasks:,} tasks, {tally.runs:,} attempts "
        f"in {took_s:.0f} s"
    )
    for fault, times in tally.fired.most_common():
        print(f"{times:>10,}  {fault}")
    if tally.failures:
        _print_failures(tally)
        return 1
    if missing := tally.missing():
        print(f"INVALID: these faults never came about: {', '.join(missing)}")
        return 2
    print(f"lost 0, unexpected 0, run twice 0; run again because their worker was lost: {tally.again:,}")
    return 0


def _print_failures(tally: Tally) -> None:
    print(f"VIOLATED in {len(tally.failures)} histories; each is replayed by the command below it")
    for failure in tally.failures:
        print(f"  seed {failure.seed}: {failure.rule}: {failure.detail}")
        print(f"    python -m simulation --seed {failure.seed} --trace")


def _mutants(seeds: int) -> int:
    began = perf_counter()
    results = hunt_all(seeds)
    width = max(len(mutant.name) for mutant, _ in results)
    print(f"{'mutant':{width}}  seed  the rule that caught it")
    for mutant, caught in results:
        by = f"{caught.seed:4}  {caught.rule}" if caught else f"   -  SURVIVED {seeds} seeds: {mutant.says}"
        print(f"{mutant.name:{width}}  {by}")
    survivors = sum(caught is None for _, caught in results)
    print(f"{len(results) - survivors} of {len(results)} mutants caught in {perf_counter() - began:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
