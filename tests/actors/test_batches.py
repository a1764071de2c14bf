"""Several tasks in one call: in the slots of a worker without its actor, and through the whole system."""

import json
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from asyncproc.actors.cell_process import make_executor
from asyncproc.actors.slots import Slots
from asyncproc.core.batches import Batching
from asyncproc.core.events import FAILED, FAILED_FOR_GOOD, KILLED, RETRY_LATER, SNOOZED, SUCCEEDED, Lease, Outcome
from asyncproc.core.states import State
from asyncproc.core.task import NO_LIMITS, TaskId, TimeLimits
from asyncproc.parents import Chunk
from asyncproc.registry import RegistryError, from_settings
from asyncproc.tasks.generate_report import Row
from tests.actors.conftest import Deploy
from tests.actors.sample_models import lines
from tests.actors.test_dependents import depending_on
from tests.deployed import settings_of
from tests.eventually import PATIENCE_S, eventually

IDS = count(1)
BOTH = pytest.mark.parametrize("task_type", ["Embed", "EmbedAsync"])


class _Figures:
    async def read(self) -> list[Row]:
        return []


class _NoParents:
    async def read(self, task_id: str, start: int) -> Chunk:
        raise AssertionError("nobody asks for parents")


class Worker:
    def __init__(self, start_dir: Path, ledger: str, concurrency: int = 1) -> None:
        given = settings_of("", "n", tasks=["sample_models", "sample_tasks"])
        executor = make_executor(given, from_settings(given, start_dir), "default-1.x", _Figures(), _NoParents())
        self.ledger = ledger
        self.ended: SimpleQueue[Outcome] = SimpleQueue()
        self.overdue: SimpleQueue[Outcome] = SimpleQueue()
        self.slots = Slots(executor, concurrency, self.ended.put, self.overdue.put, max_extended_s=10.0)

    def lease(
        self, n: int, task_type: str, limits: TimeLimits = NO_LIMITS, confined: bool = False, **payload: object
    ) -> Lease:
        body = json.dumps({"ledger": self.ledger, "n": n, **payload}).encode()
        return (n.to_bytes(16), 1, 1, task_type, "default", body, float(n), limits, confined)

    def outcomes(self, number: int) -> dict[int, Outcome]:
        found = [self.ended.get(timeout=PATIENCE_S) for _ in range(number)]
        assert self.ended.empty()
        return {int.from_bytes(outcome[0]): outcome for outcome in found}

    def run(self, task_type: str, *hows: str) -> dict[int, Outcome]:
        self.slots.put([self.lease(n, task_type, how=how) for n, how in enumerate(hows)])
        return self.outcomes(len(hows))

    def calls(self) -> list[object]:
        return [line["call"] for line in lines(self.ledger)]


@pytest.fixture
def worker(start_dir: Path, tmp_path: Path) -> Worker:
    return Worker(start_dir, str(tmp_path / "calls"))


@BOTH
def test_what_is_there_goes_in_calls_of_its_size(worker: Worker, task_type: str) -> None:
    ended = worker.run(task_type, *[""] * 10)

    assert worker.calls() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert {n: outcome[3] for n, outcome in ended.items()} == {n: b"%d" % n for n in range(10)}
    assert {outcome[2] for outcome in ended.values()} == {SUCCEEDED}


@BOTH
def test_each_task_of_a_call_has_its_own_end(worker: Worker, task_type: str) -> None:
    hows = ["", "fails", "fails for good", "snoozes", "large", "enqueues"]
    ended = worker.run(task_type, *hows[:4]) | {4 + n: each for n, each in worker.run(task_type, *hows[4:]).items()}

    assert [ended[n][2] for n in range(6)] == [SUCCEEDED, FAILED, FAILED_FOR_GOOD, SNOOZED, FAILED, SUCCEEDED]
    assert (ended[1][4], ended[2][4]) == ("ValueError: bad input", "Fail: never")
    assert ended[3][6] == 0.05
    assert ended[4][4].startswith("ResultRefused: the result is 2000002 bytes")
    (child,) = ended[5][7]
    assert json.loads(child[1])["n"] == 101
    assert child[2].created_by.startswith("task ")
    assert child[2].affinity_key == "warm"


@BOTH
@pytest.mark.parametrize(
    ("how", "ending", "error"),
    [
        ("all fail", FAILED, "ValueError: the model broke"),
        ("all wait", RETRY_LATER, "Retry: not yet"),
        ("short", FAILED, "BatchRefused: process_batch returned 1 results for 3 tasks"),
        ("text", FAILED, "BatchRefused: process_batch returned a str, not a list of results"),
    ],
)
def test_what_the_call_raises_fails_each_of_them(
    worker: Worker, task_type: str, how: str, ending: int, error: str
) -> None:
    ended = worker.run(task_type, "", how, "")

    assert [(outcome[2], outcome[4]) for outcome in ended.values()] == [(ending, error)] * 3
    assert len({outcome[6] for outcome in ended.values()}) == (1 if ending == RETRY_LATER else 3), "a spread of its own"


def test_a_payload_that_its_model_refuses_keeps_nobody_else_from_the_call(worker: Worker) -> None:
    bad = (*worker.lease(1, "Embed")[:5], b'{"n": "x"}', *worker.lease(1, "Embed")[6:])
    worker.slots.put([worker.lease(0, "Embed"), bad, worker.lease(2, "Embed")])

    ended = worker.outcomes(3)

    assert [ended[n][2] for n in range(3)] == [SUCCEEDED, FAILED, SUCCEEDED]
    assert worker.calls() == [[0, 2]]


def test_others_go_on_in_their_order_and_a_suspect_goes_by_itself(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker.slots.put([worker.lease(9, "Hold", gate=str(gate))])
    eventually(lambda: lines(worker.ledger))
    kinds = ["Embed", "Note", "Embed", "Embed", "Note", "Embed"]
    worker.slots._cells = _Cells(worker)
    assert worker.slots._batcher is not None
    worker.slots._batcher._confines = True
    worker.slots.put([worker.lease(n, kind, confined=n == 3) for n, kind in enumerate(kinds)])
    gate.touch()
    order = [worker.ended.get(timeout=PATIENCE_S)[0][-1] for _ in range(7)]

    assert order == [9, 0, 2, 5, 1, 3, 4]


class _Cells:
    def __init__(self, worker: Worker) -> None:
        self._executor = worker.slots._executor

    def run(self, lease: Lease) -> Outcome | None:
        return self._executor.run_batch([lease])[0]

    def stop(self, task_id: TaskId) -> None: ...

    def kill(self, task_id: TaskId) -> None: ...


@pytest.mark.parametrize("task_type", ["EmbedLater", "EmbedLaterAsync"])
def test_the_first_waits_for_others_and_not_for_ever(worker: Worker, task_type: str) -> None:
    worker.slots.put([worker.lease(0, task_type)])
    worker.slots.put([worker.lease(1, task_type)])
    worker.outcomes(2)
    worker.slots.put([worker.lease(2, task_type)])
    worker.slots.put([worker.lease(n, task_type) for n in range(3, 7)])

    worker.outcomes(5)

    assert worker.calls() == [[0, 1], [2, 3, 4, 5], [6]]


def test_a_suspect_waits_for_nobody_and_nobody_joins_it(worker: Worker) -> None:
    worker.slots.put([worker.lease(0, "EmbedLater", confined=True), worker.lease(1, "EmbedLater")])
    worker.slots.put([worker.lease(2, "EmbedLater")])

    worker.outcomes(3)

    assert worker.calls() == [[0], [1, 2]]


@pytest.mark.parametrize("task_type", ["EmbedLater", "EmbedLaterAsync"])
def test_what_waits_for_others_can_be_had_back(worker: Worker, task_type: str) -> None:
    worker.slots.put([worker.lease(n, task_type) for n in range(3)])
    one = worker.slots.take_back({(1).to_bytes(16)}, gathering=False), worker.slots.take_back({(1).to_bytes(16)})
    worker.outcomes(2)
    worker.slots.put([worker.lease(n, task_type) for n in range(3, 5)])
    rest = worker.slots.take_back()
    worker.slots.put([worker.lease(5, task_type)])
    worker.outcomes(1)

    assert (one[0], [lease[0][-1] for lease in one[1]]) == ([], [1])
    assert [lease[0][-1] for lease in rest] == [3, 4]
    assert worker.calls() == [[0, 2], [5]]


@BOTH
def test_a_call_is_told_once_to_come_to_an_end(worker: Worker, task_type: str) -> None:
    limits = [NO_LIMITS, TimeLimits(0.0, 0.2), TimeLimits(0.0, 0.3)]
    worker.slots.put([worker.lease(n, task_type, each, how="ends softly" * (n == 0)) for n, each in enumerate(limits)])

    ended = worker.outcomes(3)

    assert {outcome[2] for outcome in ended.values()} == {SUCCEEDED}


def test_each_has_its_own_hard_limit(worker: Worker) -> None:
    limits = [TimeLimits(0.1, 0.0), NO_LIMITS, TimeLimits(0.15, 0.0)]
    worker.slots.put([worker.lease(n, "Embed", each, how="hangs") for n, each in enumerate(limits)])

    overdue = [worker.overdue.get(timeout=PATIENCE_S) for _ in range(2)]

    assert [(outcome[0][-1], outcome[2]) for outcome in overdue] == [(0, KILLED), (2, KILLED)]
    assert overdue[0][4].startswith("TimeLimitExceeded: the attempt ran for longer than 0.1 s")


@BOTH
def test_whoever_extends_the_limits_puts_off_those_of_the_call(worker: Worker, task_type: str) -> None:
    limits = [TimeLimits(0.2, 0.1), TimeLimits(0.2, 0.0), NO_LIMITS]
    hows = ["", "extends", ""]
    worker.slots.put([worker.lease(n, task_type, limits[n], how=how) for n, how in enumerate(hows)])
    well = worker.outcomes(3)
    worker.slots.put([worker.lease(n, task_type, TimeLimits(60.0, 0.0), how="extends") for n in range(3)])
    refused = worker.outcomes(3)

    assert {outcome[2] for outcome in well.values()} == {SUCCEEDED}
    assert {outcome[4].partition(":")[0] for outcome in refused.values()} == {"ExtensionRefused"}


def test_one_that_is_cancelled_ends_with_the_call_and_all_of_them_are_given_up(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker.slots.put([worker.lease(n, "Embed", how="heeds", gate=str(gate)) for n in range(2)])
    eventually(worker.calls)
    worker.slots.stop(((0).to_bytes(16), 1), 0.0)
    with pytest.raises(Empty):
        worker.overdue.get(timeout=0.05)
    gate.touch()
    assert {n: outcome[3] for n, outcome in worker.outcomes(2).items()} == {0: b"true", 1: b"false"}

    worker.slots.put([worker.lease(n, "Embed", gate=f"{gate}.2") for n in (2, 3)])
    eventually(lambda: len(worker.calls()) == 2)
    for n in (2, 3):
        worker.slots.stop((n.to_bytes(16), 1), 0.0)
    given_up = [worker.overdue.get(timeout=PATIENCE_S) for _ in range(2)]
    Path(f"{gate}.2").touch()

    assert sorted(outcome[0][-1] for outcome in given_up) == [2, 3]
    assert {outcome[4].partition(":")[0] for outcome in given_up} == {"TaskCancelled"}


def test_config_goes_before_code_and_names_only_what_batches(start_dir: Path) -> None:
    def registry(**batches: object) -> dict[str, Batching]:
        given = settings_of("", "n", tasks=["sample_models"], batches=batches)
        return from_settings(given, start_dir).batching()

    assert registry()["Embed"] == Batching(4, 0.0)
    assert registry(Embed={"size": 9}, EmbedLater={"wait": "0s"})["EmbedLater"] == Batching(4, 0.0)
    with pytest.raises(RegistryError, match=r"batches.Modelled: there is no such type with process_batch: known are E"):
        registry(Modelled={"size": 2})


# ---- through the whole system


def test_each_task_of_a_batch_has_its_own_row(deploy: Deploy, tmp_path: Path) -> None:
    ledger, gate = str(tmp_path / "calls"), tmp_path / "gate"
    system = deploy(tasks=["sample_models", "sample_tasks"], queue={"workerPoolSize": 1, "backOff": {"base": "50ms"}})
    system.enqueue("Hold", {"ledger": str(tmp_path / "other"), "n": 0, "gate": str(gate)})
    eventually((tmp_path / "other").exists)
    hows = ["", "fails", "fails for good", "snoozes", "enqueues", ""]
    tasks = system.enqueue("Embed", *[{"ledger": ledger, "n": n, "how": how} for n, how in enumerate(hows)])
    gate.touch()

    ended = [system.ended(task) for task in tasks[:3]] + [system.ended(task) for task in tasks[4:]]

    states = [State.SUCCEEDED, State.FAILED, State.FAILED, State.SUCCEEDED, State.SUCCEEDED]
    assert [task.state for task in ended] == states
    assert [task.attempt for task in ended] == [1, 2, 1, 1, 1]
    calls = lines(ledger)
    assert [line["call"] for line in calls[:2]] == [[0, 1, 2, 3], [4, 5]]
    assert eventually(lambda: [line for line in lines(ledger) if line["call"] == [104]])
    assert system.errors(tasks[1])[0]["message"] == "bad input"


def test_tasks_of_a_batch_note_what_they_know_and_see_their_parents(deploy: Deploy, tmp_path: Path) -> None:
    ledger = str(tmp_path / "calls")
    system = deploy(tasks=["sample_models"], queue={"workerPoolSize": 1, "backOff": {"base": "50ms"}})

    parents = system.enqueue("Embed", *[{"ledger": ledger, "n": n, "how": "goes on"} for n in (7, 8)])
    made = system.make("Embed", *[{"ledger": ledger, "n": n, "how": "gathers"} for n in range(2)])
    children = system.send(depending_on(made, *parents))

    assert [(task.attempt, task.result) for task in map(system.ended, parents)] == [(2, b"7"), (2, b"8")]
    assert [system.ended(task).result for task in children] == [b'{"of":[7,8]}'] * 2


def test_a_batch_that_dies_with_its_worker_finds_the_culprit(deploy: Deploy, tmp_path: Path) -> None:
    ledger = str(tmp_path / "calls")
    system = deploy(tasks=["sample_models"], queue={"workerPoolSize": 1})

    tasks = system.enqueue("Embed", *[{"ledger": ledger, "n": n, "how": "dies" * (n == 1)} for n in range(3)])
    ended = [system.ended(task) for task in tasks]

    assert [task.state for task in ended] == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    assert [task.attempt for task in ended] == [1, 2, 1]
    assert lines(ledger)[0]["call"] == [0, 1, 2]
    assert all(len(list(line["call"])) == 1 for line in lines(ledger)[1:])  # type: ignore[call-overload]
