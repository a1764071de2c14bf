"""What counts as a pass, a failure, and a run that shows nothing."""

from pathlib import Path

import pytest

from chaos.account import Account
from chaos.campaign import FAILED, INVALID, PASSED, Result, judge, planned
from chaos.faults import FAULTS
from chaos.report import keep, row, write


def test_an_account_without_a_fault_passes() -> None:
    assert judge(Account(acknowledged=100), 0, "", []) == (PASSED, "")


@pytest.mark.parametrize("name", ["lost", "unexpected", "wrong", "unrecorded"])
def test_one_of_these_is_too_many(name: str) -> None:
    account = Account(acknowledged=100)
    account.note(name, "t1")

    verdict, why = judge(account, 9, "", [])

    assert verdict == FAILED
    assert why.startswith("1 ")


@pytest.mark.parametrize(("may", "verdict"), [(0, FAILED), (1, FAILED), (2, PASSED)])
def test_no_more_may_be_doubled_than_ran_on_what_was_killed(may: int, verdict: str) -> None:
    assert judge(Account(acknowledged=100, cut_off=1, sequential=1), may, "", [])[0] == verdict


def test_a_planned_fault_that_never_struck_makes_the_run_invalid() -> None:
    assert judge(Account(acknowledged=100), 0, "", ["disk full"]) == (INVALID, "never struck: disk full")


def test_a_run_in_which_nothing_was_acknowledged_is_invalid() -> None:
    assert judge(Account(), 0, "", [])[0] == INVALID


def test_what_was_lost_is_said_even_where_a_fault_never_struck() -> None:
    assert judge(Account(acknowledged=1, lost=1), 0, "", ["disk full"])[0] == FAILED


def test_every_fault_plans_all_its_variants_and_some_of_them_in_brief() -> None:
    for fault in FAULTS.values():
        assert planned(fault, brief=False) == list(fault.variants)
        assert 0 < len(planned(fault, brief=True)) <= len(fault.variants)


def test_the_report_has_the_last_result_of_every_fault_and_a_picture(tmp_path: Path) -> None:
    account = {**vars(Account(acknowledged=5, cut_off=2)), "doubled": 2}
    for number, name in enumerate(FAULTS):
        timeline, marks = [1, 2, 3], [(0.1, "strike"), (0.3, "healed")]
        keep(
            Result(name, "", number, PASSED, account=account, timeline=timeline, marks=marks, gaps_s=[1.0, 2.0]),
            tmp_path,
        )
    keep(Result("zombie", "", 99, FAILED, "1 lost", account=account, timeline=[1]), tmp_path)

    write(tmp_path)

    lines = (tmp_path / "REPORT.md").read_text().splitlines()
    assert {line.split("`")[1] for line in lines if line.startswith("| `")} == FAULTS.keys()
    (zombie,) = [line for line in lines if line.startswith("| `zombie`")]
    assert zombie.startswith("| `zombie` | 99 |")
    assert zombie.endswith("| FAILED: 1 lost |")
    assert any("2 (2 cut_off)" in line and "1.00 / 2.00 / 2.00" in line for line in lines)
    assert (tmp_path / "timeline.png").stat().st_size > 10_000


def test_a_row_has_as_many_cells_with_an_account_as_without() -> None:
    account = {**vars(Account()), "doubled": 0}

    assert row(Result("cut", "", 1, PASSED, account=account)).count("|") == row(Result("cut", "", 1, "skipped")).count(
        "|"
    )
