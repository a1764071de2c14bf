"""Each fault in its short form: what it does to the system, the system survives, and every task is accounted for."""

from pathlib import Path

import pytest

from chaos.campaign import PASSED, SKIPPED, run
from chaos.clients import Load
from chaos.faults import FAULTS
from chaos.system import System

TASKS = 300


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.nodes])
def test_nothing_is_lost_and_nothing_done_twice_under(name: str, struck: System, tmp_path: Path) -> None:
    result = run(struck, FAULTS[name], Load(f"test-{name}", 1, TASKS, backlog=200, batch=20), tmp_path, brief=True)

    if result.verdict == SKIPPED:
        pytest.skip(result.why)
    assert result.verdict == PASSED, (result.why, result.account)
    assert result.account["acknowledged"] >= TASKS
