"""Joins the ledger with the tables: what became of every task that was asked for, and of those that were not."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from chaos.intent import BACKOFF_S, Intent, intent
from chaos.ledger import CLIENTS, TASKS, LedgerTorn, Record, read

FINAL_STATES: Final = ("succeeded", "failed", "cancelled")
SLACK_S: Final = 0.05
"""Between the clock of the database and that of a task."""
OVERDUE_S: Final = 1.0
"""A ready task that waits for so long after one of a lower rank began counts as an inversion."""
AGING_S: Final = 60.0
EXAMPLES: Final = 5

ROWS: Final = """
    SELECT id::text, payload->>'n', state, attempt, lease, json_text, errors, extract(epoch FROM created_at)::float8,
        extract(epoch FROM finished_at)::float8
    FROM (
        SELECT id, payload, state, attempt, lease, NULL AS json_text, cardinality(errors) AS errors, created_at,
            NULL::timestamptz AS finished_at, created_by
        FROM asyncproc.task_live
        UNION ALL
        SELECT id, payload, state, attempt, lease, result::text, cardinality(errors), created_at, finished_at,
            created_by
        FROM asyncproc.task_done
    ) AS task
    WHERE created_by = %s
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A task as the tables have it in the end."""

    id: str
    n: int
    state: str
    attempt: int
    lease: int
    result: str | None
    errors: int
    created_s: float
    finished_s: float | None

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> "Row":
        return cls(values[0], int(values[1]), *values[2:])


@dataclass(slots=True)
class Run:
    """One execution of a task's body."""

    attempt: int
    pid: int
    started_ns: int
    started_wall_s: float
    ended_ns: int | None = None
    well: bool = False


@dataclass
class Account:
    """How many, and the first few of each by name."""

    acknowledged: int = 0
    unknown: int = 0
    """Tasks of requests that got no 2xx, each try by itself."""
    answers: dict[str, int] = field(default_factory=dict)
    """Instead of a 2xx, by status or error."""
    longest_503_s: float = 0.0
    recovered: int = 0
    """Tasks that are there though no acknowledgement arrived."""
    starts: int = 0
    lost: int = 0
    unexpected: int = 0
    sequential: int = 0
    overlapping: int = 0
    after_end: int = 0
    cut_off: int = 0
    """Ran again because the process that ran them was killed in the middle of it."""
    unrecorded: int = 0
    """Starts of which the table knows nothing."""
    early: int = 0
    inversions: int = 0
    """Tasks that waited on for long after one of a lower rank had begun."""
    wrong: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def doubled(self) -> int:
        return self.sequential + self.overlapping + self.after_end + self.cut_off

    def note(self, kind: str, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(found := self.examples.setdefault(kind, [])) < EXAMPLES:
            found.append(what)


def settle(folder: Path, rows: Iterable[Row], seed: int, *, one_key_one_task: bool, may_lose: bool) -> Account:
    """`one_key_one_task`: the API promises that a repeated request makes no second task. `may_lose`: workers were
    killed, which a task may count among its failures.

    Raises `LedgerTorn`.
    """
    account = Account()
    table = list(rows)
    asked, acknowledged = _clients(folder, account)
    runs = _runs(folder)
    by_id = {row.id: row for row in table}
    if len(by_id) != len(table):
        for task_id, number in Counter(row.id for row in table).items():
            if number > 1:
                account.note("unexpected", f"{task_id} has {number} rows")
    for task_id in acknowledged:
        row = by_id.get(task_id)
        if row is None or row.state not in FINAL_STATES or task_id not in runs:
            account.note("lost", f"{task_id} is {row.state if row else 'not there'}")
    account.recovered = sum(1 for task_id in by_id if task_id not in acknowledged)
    _unexpected(account, table, runs, asked, one_key_one_task=one_key_one_task)
    for row in by_id.values():
        wanted = intent(seed, row.n)
        _check_end(account, row, wanted, may_lose=may_lose)
        _check_runs(account, row, wanted, runs.get(row.id, []))
    account.starts = sum(map(len, runs.values()))
    account.inversions = _inversions(by_id, runs, seed)
    return account


def _clients(folder: Path, account: Account) -> tuple[Counter[int], set[str]]:
    """How often each number was asked for, and the ids that were acknowledged."""
    asked: Counter[int] = Counter()
    acknowledged: set[str] = set()
    for record in read(folder / CLIENTS):
        match record.kind:
            case "ask":
                first, size = record.fields[1:]
                asked.update(range(first, first + size))
                account.unknown += size
            case "ack":
                acknowledged.update(record.fields[2])
                account.unknown -= len(record.fields[2])
            case "unknown":
                reason, took_s = record.fields[2:]
                account.answers[reason] = account.answers.get(reason, 0) + 1
                if reason == "503":
                    account.longest_503_s = max(account.longest_503_s, round(took_s, 2))
    account.acknowledged = len(acknowledged)
    return asked, acknowledged


def _runs(folder: Path) -> dict[str, list[Run]]:
    """By task, in the order of their starts."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for record in sorted(read(folder / TASKS), key=_at):
        if record.kind == "start":
            task_id, _, attempt, pid, _, wall_s = record.fields
            runs[task_id].append(Run(attempt, pid, record.at_ns, wall_s))
        else:
            task_id, _, attempt, pid, well = record.fields
            begun = [run for run in runs[task_id] if (run.attempt, run.pid, run.ended_ns) == (attempt, pid, None)]
            if not begun:
                raise LedgerTorn(f"task {task_id} ended without a beginning")
            begun[-1].ended_ns, begun[-1].well = record.at_ns, well
    return runs


def _at(record: Record) -> int:
    return record.at_ns


def _unexpected(
    account: Account, table: list[Row], runs: dict[str, list[Run]], asked: Counter[int], *, one_key_one_task: bool
) -> None:
    """Tasks that nobody asked for, and more of one number than were asked for."""
    known = {row.id for row in table}
    for task_id in runs.keys() - known:
        account.note("unexpected", f"{task_id} ran and is in no table")
    for n, number in Counter(row.n for row in table).items():
        allowed = min(asked[n], 1) if one_key_one_task else asked[n]
        for _ in range(number - allowed):
            account.note("unexpected", f"number {n} is there {number} times, {allowed} are right")


def _check_end(account: Account, row: Row, wanted: Intent, *, may_lose: bool) -> None:
    if row.state not in FINAL_STATES:
        return  # An acknowledged one counts as lost, any other as one whose request never came to an end.
    result = str(row.n) if wanted.state == "succeeded" else None
    errors_right = row.errors == wanted.fails or (may_lose and row.errors > wanted.fails)
    if row.state != wanted.state or row.result != result or not errors_right:
        account.note("wrong", f"{row.id} is {row.state} with {row.result} and {row.errors} errors, not {wanted.state}")


def _check_runs(account: Account, row: Row, wanted: Intent, runs: list[Run]) -> None:
    if len(runs) > row.lease:
        account.note("unrecorded", f"{row.id} began {len(runs)} times by {row.lease} leases")
    if runs and wanted.delay_s and runs[0].started_wall_s < row.created_s + wanted.delay_s - SLACK_S:
        account.note("early", f"{row.id} began before its delay was over")
    for before, run in pairwise(runs):
        kind = _doubled(before, run, row)
        if kind:
            account.note(kind, f"{row.id}: attempt {run.attempt} after attempt {before.attempt}")
        elif before.ended_ns is not None and run.started_ns < before.ended_ns + 1e9 * (BACKOFF_S - SLACK_S):
            account.note("early", f"{row.id} began again before its back-off was over")


def _doubled(before: Run, run: Run, row: Row) -> str:
    """What kind of repetition it is; empty where the run before failed and this is the next attempt."""
    if before.ended_ns is None:
        return "cut_off"
    if run.started_ns < before.ended_ns:
        return "overlapping"
    if not before.well and run.attempt == before.attempt + 1:
        return ""
    if row.finished_s is not None and run.started_wall_s > row.finished_s + SLACK_S:
        return "after_end"
    return "sequential"


def _inversions(rows: dict[str, Row], runs: dict[str, list[Run]], seed: int) -> int:
    """Tasks that were ready, saw one of a lower rank begin, and went on waiting for long.

    What a worker was given ahead begins a little out of order; that is not meant.
    """
    ready: list[tuple[float, float, str]] = []
    starts: list[tuple[float, float, str]] = []
    for task_id in runs.keys() & rows.keys():
        wanted = intent(seed, rows[task_id].n)
        ready_s = rows[task_id].created_s + wanted.delay_s
        rank = ready_s - wanted.priority * AGING_S
        ready.append((ready_s, rank, task_id))
        starts.append((runs[task_id][0].started_wall_s, rank, task_id))
    ready.sort(reverse=True)
    waiting: list[tuple[float, str]] = []
    passed_s: dict[str, float] = {}
    found = 0
    for started_s, rank, task_id in sorted(starts):
        while ready and ready[-1][0] < started_s:
            _, its_rank, other = ready.pop()
            heapq.heappush(waiting, (its_rank, other))
        while waiting and waiting[0][0] < rank:
            passed_s.setdefault(heapq.heappop(waiting)[1], started_s)
        found += started_s - passed_s.get(task_id, started_s) > OVERDUE_S
    return found
