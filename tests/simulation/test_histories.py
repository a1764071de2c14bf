"""The short form of `make simulate`: some histories, some seeds for each mutant, and the simulator's own promises."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from simulation.__main__ import main
from simulation.campaign import Failure, Tally
from simulation.faults import Fault
from simulation.history import History
from simulation.mutants import MUTANTS, Mutant, hunt

HISTORIES = 100
SEEDS_FOR_MUTANTS = 200
RARE = {
    "forgets-what-it-brought", "hands-back-in-a-drain", "ignores-weights", "purges-as-read", "reads-while-unknown",
    "reckons-with-nobody", "replaces-all-the-same", "replaces-what-runs", "returns-what-it-runs", "reuses-sessions",
    "skips-the-lease-check-on-return", "takes-back-unasked", "trusts-any-epoch", "trusts-old-copies",
}  # fmt: skip
"""Caught by `make simulate`, which takes more seeds."""


def test_whatever_breaks_every_task_ends_once_and_none_runs_twice() -> None:
    fired: Counter[Fault] = Counter()
    for seed in range(HISTORIES):
        try:
            fired += History(seed).run().fired
        except Exception as error:
            error.add_note(f"replay it with: python -m simulation --seed {seed} --trace")
            raise
    assert not set(Fault) - fired.keys(), "a history without trouble proves nothing"


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if mutant.name not in RARE], ids=lambda mutant: mutant.name
)
def test_no_mutant_survives(mutant: Mutant) -> None:
    assert hunt(mutant, SEEDS_FOR_MUTANTS) is not None


def test_a_mutant_leaves_nothing_behind() -> None:
    for mutant in MUTANTS:
        with mutant.at_work():
            pass
    assert History(0).run().steps


def test_one_seed_has_one_trace() -> None:
    first, second = (_trace(seed=7, hash_seed=hash_seed) for hash_seed in ("1", "2"))
    assert first.count(b"\n") > 100
    assert first == second


def _trace(seed: int, hash_seed: str) -> bytes:
    command = [sys.executable, "-m", "simulation", "--seed", str(seed), "--trace"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


def test_a_violation_names_its_seed_the_rule_and_the_replay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Tally(histories=1, failures=[Failure(17, "the best rank goes first", "task 4 waits")])
    monkeypatch.setattr("simulation.__main__.run_histories", lambda seeds: failed)
    assert main(["--seeds", "1"]) == 1
    said = capsys.readouterr().out
    assert "seed 17: the best rank goes first: task 4 waits" in said
    assert "python -m simulation --seed 17 --trace" in said


def test_a_run_in_which_a_planned_fault_never_came_about_is_invalid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fired = Counter(set(Fault) - {Fault.FENCED})
    monkeypatch.setattr("simulation.__main__.run_histories", lambda seeds: Tally(histories=1, fired=fired))
    assert main(["--seeds", "1"]) == 2
    assert f"never came about: {Fault.FENCED}" in capsys.readouterr().out


def test_a_mutant_is_replayed_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "0", "--mutant", "counts-twice"]) == 1
    assert "the counters add up" in capsys.readouterr().err
