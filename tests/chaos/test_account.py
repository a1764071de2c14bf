"""The account finds each kind of fault in a history that was made to have it, and none in one that has none."""

import json
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from chaos.account import Account, Row, settle
from chaos.intent import Intent, intent
from chaos.ledger import CLIENTS, TASKS, LedgerTorn, Pen, read

SEED = 1
WALL_S = 1_000.0
MS = 1_000_000


def _number(wanted: Callable[[Intent], bool]) -> int:
    return next(n for n in range(10_000) if wanted(intent(SEED, n)))


PLAIN = _number(lambda task: task.fails == 0 and not task.delay_s)
FAILS_ONCE = _number(lambda task: task.fails == 1)
DOOMED = _number(lambda task: task.type == "Doomed")
DELAYED = _number(lambda task: bool(task.delay_s))


class History:
    """A ledger and tables, written by hand. The wall clock and the other one tell the same, from 1,000 s on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []

    def _line(self, file: str, kind: str, at_ms: int, *fields: object) -> None:
        body = json.dumps([kind, at_ms * MS, *fields], separators=(",", ":")).encode()
        with (self.folder / file).open("ab") as ledger:
            ledger.write(b"%08x %s\n" % (crc32(body), body))

    def ask(self, n: int, ack: str = "") -> None:
        self._line(CLIENTS, "ask", 0, f"key-{n}", n, 1)
        if ack:
            self._line(CLIENTS, "ack", 1, f"key-{n}", n, [ack])

    def run(self, n: int, at_ms: int, attempt: int = 1, end_ms: int | None = None, *, well: bool = True) -> None:
        task_id, pid = f"t{n}", 100 + at_ms
        self._line(TASKS, "start", at_ms, task_id, n, attempt, pid, "worker", WALL_S + at_ms / 1000)
        if end_ms is not None:
            self._line(TASKS, "end", end_ms, task_id, n, attempt, pid, well)

    def row(self, n: int, **different: object) -> None:
        usual = {
            "state": "succeeded",
            "attempt": 1,
            "lease": 1,
            "result": str(n),
            "errors": 0,
            "finished_s": WALL_S + 9,
        }
        values = {**usual, **different}
        created_s = WALL_S
        self.rows.append(Row(id=f"t{n}", n=n, created_s=created_s, **values))  # type: ignore[arg-type]

    def settled(self, *, one_key_one_task: bool = True, may_lose: bool = False) -> Account:
        return settle(self.folder, self.rows, SEED, one_key_one_task=one_key_one_task, may_lose=may_lose)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def _faults(account: Account) -> dict[str, int]:
    names = ("lost", "unexpected", "sequential", "overlapping", "after_end", "cut_off", "unrecorded", "early", "wrong")
    return {name: number for name in names if (number := getattr(account, name))}


def test_a_history_without_a_fault_has_none(history: History) -> None:
    for n in (PLAIN, FAILS_ONCE, DOOMED, DELAYED):
        history.ask(n, ack=f"t{n}")
    history.run(PLAIN, 10, end_ms=11)
    history.row(PLAIN)
    history.run(FAILS_ONCE, 10, end_ms=11, well=False)
    history.run(FAILS_ONCE, 300, attempt=2, end_ms=301)
    history.row(FAILS_ONCE, attempt=2, lease=2, errors=1)
    history.run(DOOMED, 10, end_ms=11, well=False)
    history.run(DOOMED, 300, attempt=2, end_ms=301, well=False)
    history.row(DOOMED, state="failed", attempt=2, lease=2, errors=2, result=None)
    history.run(DELAYED, 1_010, end_ms=1_011)
    history.row(DELAYED)

    account = history.settled()

    assert _faults(account) == {}
    assert (account.acknowledged, account.unknown, account.recovered, account.starts) == (4, 0, 0, 6)


def test_an_acknowledged_task_that_is_not_there_is_lost(history: History) -> None:
    history.ask(PLAIN, ack=f"t{PLAIN}")

    account = history.settled()

    assert _faults(account) == {"lost": 1}
    assert account.examples == {"lost": [f"t{PLAIN} is not there"]}


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
def test_an_acknowledged_task_that_does_not_end_is_lost(history: History, state: str) -> None:
    history.ask(PLAIN, ack=f"t{PLAIN}")
    history.run(PLAIN, 10, end_ms=11)
    history.row(PLAIN, state=state, finished_s=None)

    assert _faults(history.settled()) == {"lost": 1}


def test_a_task_that_succeeded_without_having_run_is_lost(history: History) -> None:
    history.ask(PLAIN, ack=f"t{PLAIN}")
    history.row(PLAIN)

    assert _faults(history.settled()) == {"lost": 1}


def test_a_task_that_nobody_asked_for_is_unexpected(history: History) -> None:
    history.run(PLAIN, 10, end_ms=11)
    history.row(PLAIN)

    assert _faults(history.settled()) == {"unexpected": 1}


def test_a_task_that_ran_and_is_in_no_table_is_unexpected(history: History) -> None:
    history.ask(PLAIN)
    history.run(PLAIN, 10, end_ms=11)

    assert _faults(history.settled()) == {"unexpected": 1}


def test_a_task_of_an_unknown_request_may_be_there_or_not(history: History) -> None:
    history.ask(PLAIN)
    history.ask(FAILS_ONCE)
    history.run(PLAIN, 10, end_ms=11)
    history.row(PLAIN)

    account = history.settled()

    assert _faults(account) == {}
    assert (account.acknowledged, account.unknown, account.recovered) == (0, 2, 1)


@pytest.mark.parametrize(("one_key_one_task", "found"), [(True, {"unexpected": 1}), (False, {})])
def test_a_repeated_request_makes_a_second_task_only_where_keys_are_not_honoured(
    history: History, one_key_one_task: bool, found: dict[str, int]
) -> None:
    history.ask(PLAIN)
    history.ask(PLAIN, ack=f"t{PLAIN}")
    history.run(PLAIN, 10, end_ms=11)
    history.row(PLAIN)
    history.rows.append(Row("other", PLAIN, "succeeded", 1, 1, str(PLAIN), 0, WALL_S, WALL_S + 9))

    assert _faults(history.settled(one_key_one_task=one_key_one_task)) == found


@pytest.mark.parametrize(
    ("first_end_ms", "again_ms", "kind"),
    [(20, 15, "overlapping"), (12, 15, "sequential"), (12, 9_500, "after_end"), (None, 15, "cut_off")],
)
def test_a_second_run_that_no_failure_asked_for_is_doubled(
    history: History, first_end_ms: int | None, again_ms: int, kind: str
) -> None:
    history.ask(PLAIN, ack=f"t{PLAIN}")
    history.run(PLAIN, 10, end_ms=first_end_ms)
    history.run(PLAIN, again_ms, end_ms=again_ms + 20)
    history.row(PLAIN, lease=2)

    account = history.settled()

    assert _faults(account) == {kind: 1}
    assert account.doubled == 1


def test_the_same_attempt_that_fails_twice_is_doubled(history: History) -> None:
    history.ask(FAILS_ONCE, ack=f"t{FAILS_ONCE}")
    history.run(FAILS_ONCE, 10, end_ms=11, well=False)
    history.run(FAILS_ONCE, 400, end_ms=401, well=False)
    history.run(FAILS_ONCE, 700, attempt=2, end_ms=701)
    history.row(FAILS_ONCE, attempt=2, lease=3, errors=1)

    assert _faults(history.settled()) == {"sequential": 1}


def test_a_start_by_no_lease_is_not_on_record(history: History) -> None:
    history.ask(FAILS_ONCE, ack=f"t{FAILS_ONCE}")
    history.run(FAILS_ONCE, 10, end_ms=11, well=False)
    history.run(FAILS_ONCE, 400, attempt=2, end_ms=401)
    history.row(FAILS_ONCE, attempt=2, lease=1, errors=1)

    assert _faults(history.settled()) == {"unrecorded": 1}


def test_a_start_before_its_delay_or_back_off_is_over_is_early(history: History) -> None:
    history.ask(DELAYED, ack=f"t{DELAYED}")
    history.run(DELAYED, 500, end_ms=501)
    history.row(DELAYED)
    history.ask(FAILS_ONCE, ack=f"t{FAILS_ONCE}")
    history.run(FAILS_ONCE, 10, end_ms=11, well=False)
    history.run(FAILS_ONCE, 50, attempt=2, end_ms=51)
    history.row(FAILS_ONCE, attempt=2, lease=2, errors=1)

    assert _faults(history.settled()) == {"early": 2}


@pytest.mark.parametrize("different", [{"state": "failed", "result": None}, {"result": "-1"}, {"errors": 1}])
def test_another_end_than_the_task_must_have_is_wrong(history: History, different: dict[str, object]) -> None:
    history.ask(PLAIN, ack=f"t{PLAIN}")
    history.run(PLAIN, 10, end_ms=11)
    history.row(PLAIN, **different)

    assert _faults(history.settled()) == {"wrong": 1}


def test_a_lost_worker_may_count_as_a_failure_where_workers_are_killed(history: History) -> None:
    history.ask(PLAIN, ack=f"t{PLAIN}")
    history.run(PLAIN, 10, end_ms=11)
    history.row(PLAIN, errors=1)

    assert _faults(history.settled(may_lose=True)) == {}


@pytest.mark.parametrize(("high_ms", "inversions"), [(2_500, 0), (3_100, 1)])
def test_a_task_that_waits_long_after_one_of_lower_rank_began_is_an_inversion(
    history: History, high_ms: int, inversions: int
) -> None:
    plain = [n for n in range(500) if intent(SEED, n) == Intent(priority=intent(SEED, n).priority)]
    high = next(n for n in plain if intent(SEED, n).priority == 9)
    low = next(n for n in plain if intent(SEED, n).priority == 0)
    for n, at_ms in ((low, 2_000), (high, high_ms)):
        history.ask(n, ack=f"t{n}")
        history.run(n, at_ms, end_ms=at_ms + 1)
        history.row(n)

    assert history.settled().inversions == inversions


def test_a_torn_line_proves_nothing_and_is_said(tmp_path: Path) -> None:
    pen = Pen(tmp_path / TASKS)
    pen.write("start", "t1")
    pen.write("start", "t2")
    whole = (tmp_path / TASKS).read_bytes()

    assert [record.fields for record in read(tmp_path / TASKS)] == [("t1",), ("t2",)]
    for torn in (whole[:-1], whole.replace(b"t2", b"t3")):
        (tmp_path / TASKS).write_bytes(torn)
        with pytest.raises(LedgerTorn, match="line 2"):
            list(read(tmp_path / TASKS))


def test_the_tasks_of_a_seed_are_mixed_as_they_are_said_to_be() -> None:
    tasks = [intent(3, n) for n in range(100_000)]

    def share(wanted: Callable[[Intent], bool]) -> float:
        return sum(map(wanted, tasks)) / len(tasks)

    assert share(lambda task: task.ms == 2_000) == pytest.approx(0.001, abs=0.0005)
    assert share(lambda task: task.ms == 20) == pytest.approx(0.15, abs=0.005)
    assert share(lambda task: task.fails == 1) == pytest.approx(0.04, abs=0.003)
    assert share(lambda task: task.ms == 1 and not task.fails) == pytest.approx(0.81, abs=0.01)
    assert {task.priority for task in tasks} == set(range(10))
