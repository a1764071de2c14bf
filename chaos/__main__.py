"""`python -m chaos [FAULT ...]`: each fault against a system of its own, a table, and chaos/REPORT.md."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from random import SystemRandom  # noqa: TID251 - the seed of a run that was given none
from typing import Final

from chaos import report
from chaos.campaign import INVALID, PASSED, SKIPPED, Result, run
from chaos.clients import Load
from chaos.disks import SMALL_BYTES
from chaos.faults import FAULTS, Fault
from chaos.system import HEAD, WORKERS, NotInTime, system, until

TASKS: Final = 100_000
BACKLOG: Final = 5_000
JOIN_S: Final = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"all where none is named: {', '.join(FAULTS)}")
    parser.add_argument("--tasks", type=int, default=TASKS, help="how many are asked for at the least")
    parser.add_argument("--seed", type=int, default=None, help="of tasks and faults; another one each time without it")
    parser.add_argument("--brief", action="store_true", help="short pauses and outages, to see that it works")
    arguments = parser.parse_args()
    # Told to end, it takes along what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unknown = [name for name in arguments.faults if name not in FAULTS]
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    seed = SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    results = []
    for name in arguments.faults or FAULTS:
        print(f"{name}: seed {seed}, {arguments.tasks:,} tasks", flush=True)
        result = _apart(FAULTS[name], seed, arguments.tasks, brief=arguments.brief)
        print(report.row(result), flush=True)
        report.keep(result)
        report.write()
        results.append(result)
    return 0 if all(result.verdict in (PASSED, SKIPPED) for result in results) else 1


def _apart(fault: Fault, seed: int, tasks: int, *, brief: bool) -> Result:
    """On a system of its own. What it left is kept where the account does not add up."""
    folder = Path(tempfile.mkdtemp(prefix="ap-ledger-"))
    load = Load(f"{fault.name}-{seed}", seed, tasks, min(BACKLOG, max(tasks // 4, 200)))
    try:
        workers = 2 * (fault.nodes + 1) if fault.nodes else WORKERS
        with system(SMALL_BYTES if fault.own_disk else None, workers) as the_system:
            for _ in range(fault.nodes):
                the_system.join()
            even = {name: 2 for name in (HEAD, *the_system.nodes())}
            until(lambda: not fault.nodes or the_system.workers_by_node() == even, JOIN_S, "workers on all nodes")
            result = run(the_system, fault, load, folder, brief=brief)
            if result.verdict not in (PASSED, SKIPPED):
                the_system.keep_logs(folder)
    except OSError as error:
        result = Result(fault.name, fault.text, seed, SKIPPED, str(error))
    except NotInTime as error:
        result = Result(fault.name, fault.text, seed, INVALID, str(error))
    if result.verdict in (PASSED, SKIPPED):
        shutil.rmtree(folder)
    else:
        print(f"{fault.name}: the ledger and the logs are in {folder}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
