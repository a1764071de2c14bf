"""The slots of one worker, without a worker: real tasks of `sample_tasks` under their executor."""

import json
import os
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest

from asyncproc.actors.slots import Slots
from asyncproc.core.events import FAILED, SUCCEEDED, Lease, Outcome
from asyncproc.core.task import NO_LIMITS, TaskId, TimeLimits
from asyncproc.executor import Executor
from asyncproc.registry import from_settings
from tests.deployed import Ledger, settings_of
from tests.eventually import PATIENCE_S, eventually


class Bench(NamedTuple):
    slots: Slots
    outcomes: "SimpleQueue[Outcome]"
    ledger: Ledger
    gate: Path

    def limited(self, task_type: str, limits: TimeLimits, **payload: object) -> Lease:
        return (b"t" * 16, 1, 1, task_type, "default", json.dumps(payload).encode(), 0.0, limits, False)

    def lease(self, task_type: str, n: int, rank: float = 0.0) -> Lease:
        payload = {"ledger": self.ledger.path, "n": n, "gate": str(self.gate)}
        return (n.to_bytes(16), 1, 1, task_type, "default", json.dumps(payload).encode(), rank, NO_LIMITS, False)

    def ended(self, number: int) -> list[int]:
        """Who ended, in the order of the endings."""
        return [self.outcomes.get(timeout=PATIENCE_S)[0][-1] for _ in range(number)]


@pytest.fixture
def bench(request: pytest.FixtureRequest, start_dir: Path, tmp_path: Path) -> Bench:
    executor = Executor(from_settings(settings_of("", "n"), start_dir), "default-1.x", 1024, 1024, 4096, {})
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    return Bench(
        Slots(executor, request.param, outcomes.put, outcomes.put, max_extended_s=10.0),
        outcomes,
        Ledger(tmp_path / "ledger"),
        tmp_path / "gate",
    )


@pytest.mark.parametrize("bench", [1], indirect=True)
@pytest.mark.parametrize("task_type", ["Note", "NoteAsync"])
def test_one_slot_runs_tasks_in_the_order_their_leases_came(bench: Bench, task_type: str) -> None:
    bench.slots.put([bench.lease(task_type, n) for n in range(10)])
    bench.slots.put([bench.lease(task_type, n) for n in range(10, 20)])

    assert bench.ended(20) == list(range(20))
    assert bench.ledger.order() == list(range(20))


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_a_better_task_begins_before_those_that_wait_for_the_slot(bench: Bench) -> None:
    bench.slots.put([bench.lease("Hold", 0), *(bench.lease("Note", n, rank=float(n)) for n in range(1, 5))])
    eventually(bench.ledger.order)

    bench.slots.put([bench.lease("Note", 9, rank=0.5)])
    bench.gate.touch()

    assert bench.ended(6) == [0, 9, 1, 2, 3, 4]


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_a_slot_is_shared_by_both_kinds_of_task(bench: Bench) -> None:
    kinds = ["Note", "NoteAsync", "NoteAsync", "Note", "Note", "NoteAsync"]

    bench.slots.put([bench.lease(kind, n) for n, kind in enumerate(kinds)])

    assert bench.ended(6) == list(range(6))


@pytest.mark.parametrize("bench", [4], indirect=True)
def test_no_more_tasks_run_at_once_than_there_are_slots_of_either_kind(bench: Bench) -> None:
    kinds = ["Hold", "HoldAsync", "HoldAsync", "Hold", "HoldAsync", "Hold"]
    bench.slots.put([bench.lease(kind, n) for n, kind in enumerate(kinds)])

    eventually(lambda: len(bench.ledger.order()) == 4)
    unstarted = bench.slots.take_back()
    bench.gate.touch()

    assert [lease[0][-1] for lease in unstarted] == [4, 5]
    assert sorted(bench.ended(4)) == [0, 1, 2, 3]
    assert sorted(bench.ledger.order()) == [0, 1, 2, 3]


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_what_was_taken_back_can_be_put_again(bench: Bench) -> None:
    bench.slots.put([bench.lease("Hold", 0), bench.lease("Note", 1), bench.lease("Note", 2)])
    eventually(bench.ledger.order)

    kept = [lease for lease in bench.slots.take_back() if lease[0][-1] != 1]
    assert bench.slots.is_idle()
    bench.slots.put(kept)
    assert not bench.slots.is_idle()
    bench.gate.touch()

    assert bench.ended(2) == [0, 2]


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_of_what_is_called_back_by_name_only_that_is_taken_which_waits(bench: Bench) -> None:
    bench.slots.put([bench.lease("Hold", 0), *(bench.lease("Note", n) for n in range(1, 5))])
    eventually(bench.ledger.order)
    named = bench.lease("Note", 0)[0], bench.lease("Note", 2)[0], bench.lease("Note", 9)[0]

    taken = bench.slots.take_back({*named})
    bench.gate.touch()

    assert [lease[0] for lease in taken] == [named[1]]
    assert bench.ended(4) == [0, 1, 3, 4]


@pytest.mark.parametrize("bench", [2], indirect=True)
def test_a_task_of_a_type_nobody_knows_fails_and_frees_its_slot(bench: Bench) -> None:
    bench.slots.put([bench.lease("Nothing", n) for n in range(5)] + [bench.lease("Note", 5)])

    outcomes = [bench.outcomes.get(timeout=PATIENCE_S) for _ in range(6)]

    assert sorted((outcome[0][-1], outcome[2]) for outcome in outcomes) == [(n, n == 5) for n in range(6)]


# ---- time limits

SOFT = TimeLimits(soft_timeout_s=0.05)


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_a_task_is_told_when_its_soft_limit_is_over_and_may_end_well(bench: Bench) -> None:
    bench.slots.put([bench.limited("TidyUp", SOFT, seconds=60)])
    outcome = bench.outcomes.get(timeout=PATIENCE_S)
    assert (outcome[2], outcome[3]) == (True, b'"tidied up"')


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_a_task_that_takes_no_notice_fails_by_its_soft_limit(bench: Bench) -> None:
    bench.slots.put([bench.limited("Heedless", SOFT, seconds=60)])
    outcome = bench.outcomes.get(timeout=PATIENCE_S)
    assert outcome[2] == FAILED
    assert outcome[4] == "SoftTimeLimitExceeded: the soft time limit is over"


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_an_async_task_is_cancelled_at_its_soft_limit(bench: Bench) -> None:
    bench.slots.put([bench.limited("TidyUpAsync", SOFT, heeds=False), bench.lease("NoteAsync", 1)])
    outcome, after = (bench.outcomes.get(timeout=PATIENCE_S) for _ in range(2))
    assert (outcome[2], outcome[4]) == (False, "SoftTimeLimitExceeded: the soft time limit is over")
    assert after[2] == SUCCEEDED

    bench.slots.put([bench.limited("TidyUpAsync", SOFT, heeds=True), bench.lease("NoteAsync", 2)])
    outcome, after = (bench.outcomes.get(timeout=PATIENCE_S) for _ in range(2))
    assert (outcome[2], outcome[3]) == (True, b'"tidied up"')
    assert after[2] == SUCCEEDED


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_what_ends_before_its_limits_ends_as_ever(bench: Bench) -> None:
    limits = TimeLimits(timeout_s=60, soft_timeout_s=50)
    bench.slots.put([bench.limited("TidyUp", limits, seconds=0) for _ in range(200)])
    assert {bench.outcomes.get(timeout=PATIENCE_S)[3] for _ in range(200)} == {b'"done"'}


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_an_interrupt_that_comes_as_the_task_ends_hits_nothing_else(bench: Bench) -> None:
    """Limits about as long as the task: some are told, some are not, and each has one outcome."""
    number = 300
    bench.slots.put([bench.limited("Heedless", TimeLimits(soft_timeout_s=0.01), seconds=0.01)] * number)
    outcomes = [bench.outcomes.get(timeout=PATIENCE_S) for _ in range(number)]
    assert {outcome[3] if outcome[2] else outcome[4] for outcome in outcomes} <= {
        b'"done"', "SoftTimeLimitExceeded: the soft time limit is over",
    }  # fmt: skip
    assert bench.slots.is_idle()
    assert bench.outcomes.empty()


@pytest.mark.parametrize("bench", [1], indirect=True)
@pytest.mark.parametrize("task_type", ["Hold", "HoldAsync"])
def test_a_task_that_passes_its_hard_limit_fails_once_and_keeps_its_slot(bench: Bench, task_type: str) -> None:
    payload = {"ledger": bench.ledger.path, "n": 1, "gate": str(bench.gate)}
    bench.slots.put([bench.limited(task_type, TimeLimits(timeout_s=0.05), **payload), bench.lease("Note", 2)])

    outcome = bench.outcomes.get(timeout=PATIENCE_S)
    waiting = bench.slots.take_back()
    bench.gate.touch()

    assert (
        outcome[4] == "TimeLimitExceeded: the attempt ran for longer than 0.05 s, its time limit; its process was ended"
    )
    assert [lease[0][-1] for lease in waiting] == [2]
    # Whatever comes of it later is not told: the slot is free for others by then, and the next outcome is theirs.
    bench.slots.put(waiting)
    assert bench.ended(1) == [2]
    assert bench.outcomes.empty()


@pytest.mark.parametrize("bench", [1], indirect=True)
@pytest.mark.parametrize("task_type", ["Extend", "ExtendAsync"])
def test_a_task_that_asks_for_more_time_has_it_and_no_more_than_it_may(bench: Bench, task_type: str) -> None:
    both = TimeLimits(timeout_s=0.1, soft_timeout_s=0.05)
    for limits, by, seconds, expected in (
        (both, [0.2, 9.0], 0.3, '"done"'),
        (both, [9.0, 0.5, 0.6], 0.0, "put off by 9.5 s already, and may be by 10 s in all (queue.maxExtended)"),
        (both, [-1.0], 0.0, "it must be more than 0"),
        (TimeLimits(soft_timeout_s=0.05), [0.1], 60.0, "SoftTimeLimitExceeded"),
        (NO_LIMITS, [1e6], 0.0, '"done"'),
        # The deadline of its task stays where it is, and what it asked for is part of the limit that it is told of.
        (TimeLimits(0.05, last_s=0.1), [5.0], 0.2, "longer than 0.1 s, its time limit"),
        (TimeLimits(0.05), [0.05], 0.2, "longer than 0.1 s, its time limit"),
    ):
        bench.slots.put([bench.limited(task_type, limits, by=by, seconds=seconds)])
        outcome = bench.outcomes.get(timeout=PATIENCE_S)
        assert expected in (outcome[3].decode() if outcome[2] == SUCCEEDED else outcome[4])
        eventually(bench.slots.is_idle)


@pytest.mark.parametrize("bench", [1], indirect=True)
def test_the_error_shows_where_the_task_stood(bench: Bench) -> None:
    payload = {"ledger": bench.ledger.path, "n": 1, "gate": str(bench.gate)}
    bench.slots.put([bench.limited("Hold", TimeLimits(timeout_s=0.05), **payload)])
    record = json.loads(bench.outcomes.get(timeout=PATIENCE_S)[3])
    bench.gate.touch()
    assert "in hold" in record["traceback"]


class NoCells:
    """There is no process to be had."""

    def run(self, lease: Lease) -> None:
        return None

    def stop(self, task_id: TaskId) -> None:
        raise AssertionError("nothing runs here")

    kill = stop


@pytest.mark.parametrize("task_type", ["Note", "NoteAsync"])
def test_what_cannot_have_a_process_of_its_own_runs_in_this_one(
    start_dir: Path, tmp_path: Path, task_type: str
) -> None:
    executor = Executor(from_settings(settings_of("", "n"), start_dir), "default-1.x", 1024, 1024, 4096, {})
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    bench = Bench(
        Slots(executor, 1, outcomes.put, outcomes.put, NoCells()), outcomes, Ledger(tmp_path / "ledger"), tmp_path
    )
    bench.slots.put([(*bench.lease(task_type, n)[:8], True) for n in range(3)])
    assert bench.ended(3) == [0, 1, 2]
    assert {trace.pid for trace in bench.ledger.traces()} == {os.getpid()}
