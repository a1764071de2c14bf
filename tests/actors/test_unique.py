"""Requests with unique tasks: decided one batch after the other, without a Ray and a Postgres, and then with both."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg
import pytest

from asyncproc.actors.answers import Cause, Refusal
from asyncproc.actors.once import Keyed, Outcome
from asyncproc.actors.repeats import Repeats
from asyncproc.actors.unique import TRIES, Unique
from asyncproc.core.retry import constant
from asyncproc.core.states import State
from asyncproc.core.task import NO_TERMS, KeyUsed, NewTask, Options, Task, TaskId
from asyncproc.core.unique import NOT_ENDED, Holder, OnConflict, Wanted, Wish, to_be
from asyncproc.errors import Full, QueueFull, StorageUnavailable, TasksRejected
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System
from tests.eventually import eventually, eventually_async

OPTIONS = Options("Note", "default", 0, constant(1, 1.0), "")
RETURN = Wish(NOT_ENDED)
REJECT = Wish(NOT_ENDED, on_conflict=OnConflict.REJECT)

_ids = count(1)


def request(*keys: str, wish: Wish = RETURN, once: str = "") -> Keyed:
    tasks: list[NewTask] = [
        (next(_ids).to_bytes(16), b"{}", OPTIONS, 0.0, NO_TERMS._replace(unique_key=key)) for key in keys
    ]
    answer = json.dumps({"tasks": [{"n": int.from_bytes(task[0])} for task in tasks]}).encode()
    return Keyed(once, b"", answer, tasks, [wish] * len(tasks))


def id_in(outcome: Outcome, index: int = 0) -> TaskId:
    assert isinstance(outcome, bytes)
    return bytes.fromhex(json.loads(outcome)["tasks"][index]["id"].replace("-", ""))


@dataclass
class Table:
    """Commits wait until `go` is set."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    rows: dict[tuple[str, str], NewTask] = field(default_factory=dict)
    commits: list[list[TaskId]] = field(default_factory=list)
    keys: list[KeyUsed] = field(default_factory=list)
    known: set[TaskId] = field(default_factory=set)
    failure: Exception | None = None
    away: str = ""
    full: set[TaskId] = field(default_factory=set)
    """Tasks for which there is no room."""
    stale: int = 0
    """How many commits find that what they were to replace has begun."""
    looked_for: int = 0

    async def holders(self, wanted: Sequence[Wanted]) -> dict[Wanted, Holder]:
        await asyncio.sleep(0)
        return {one: to_be(self.rows[one.type, one.key]) for one in wanted if (one.type, one.key) in self.rows}

    async def existing(self, ids: Sequence[TaskId]) -> set[TaskId]:
        self.looked_for += 1
        return self.known & {*ids}

    async def live_tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Task]:
        rows = {row[0]: row for row in self.rows.values()}
        return {task_id: Task(task_id, b"", OPTIONS, State.QUEUED, 0.0, 0.0) for task_id in ids if task_id in rows}

    async def commit(
        self,
        tasks: list[NewTask],
        keys: list[KeyUsed],
        sizes: Sequence[int],
        replaced: Sequence[tuple[Task, NewTask]] = (),
    ) -> bool:
        self.commits.append([task[0] for task in tasks])
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        if full := self.full & {task[0] for task in tasks}:
            raise QueueFull(tuple(Full((task_id,), task_id, "default", "", 9, 9) for task_id in full))
        if self.stale:
            self.stale -= 1
            return False
        for task in (*tasks, *(new for _, new in replaced)):
            self.rows[task[2].type, task[4].unique_key] = task
        self.keys += keys
        return True


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def unique(table: Table) -> Unique:
    return Unique(
        table, Repeats(), lambda _: None, table.commit, lambda: table.away, lambda: 1_000.0,
        asyncio.Lock(), 60.0,
    )  # fmt: skip


async def under_way(table: Table, call: "asyncio.Task[list[Outcome]]") -> "asyncio.Task[list[Outcome]]":
    """A call that has come to its commit."""

    async def has_come() -> bool:
        return bool(table.commits)

    await eventually_async(has_come)
    return call


async def test_a_key_is_not_read_while_a_commit_may_take_it(table: Table, unique: Unique) -> None:
    one, other = request("k"), request("k")
    first = await under_way(table, asyncio.create_task(unique.enqueue([one])))
    second = asyncio.create_task(unique.enqueue([other]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(table.commits) == 1

    table.go.set()

    assert await first == [None]
    assert id_in((await second)[0]) == one.tasks[0][0]
    assert len(table.commits) == 1


async def test_those_that_wait_together_are_committed_together(table: Table, unique: Unique) -> None:
    table.go.set()
    requests = [request("a", "b"), request("b", "c"), request("a", wish=REJECT), request("d")]

    outcomes = [outcome for (outcome,) in await asyncio.gather(*(unique.enqueue([one]) for one in requests))]

    assert outcomes[0] is outcomes[3] is None
    assert id_in(outcomes[1]) == requests[0].tasks[1][0]
    assert isinstance(outcomes[1], bytes)
    assert "id" not in json.loads(outcomes[1])["tasks"][1]
    assert isinstance(outcomes[2], Refusal)
    assert outcomes[2].cause is Cause.UNIQUE
    assert outcomes[2].holders == ((0, (requests[0].tasks[0][0], State.QUEUED)),)
    new = [requests[0].tasks[0], requests[0].tasks[1], requests[1].tasks[1], requests[3].tasks[0]]
    assert table.commits == [[task[0] for task in new]]


async def test_whoever_leans_on_a_commit_that_nobody_knows_of_is_told_so(table: Table, unique: Unique) -> None:
    table.go.set()
    table.rows["Note", "there"] = there = request("there").tasks[0]
    table.failure = StorageUnavailable("cut off")

    outcomes = await unique.enqueue([request("k"), request("k"), request("k", wish=REJECT), request("there")])

    for refusal in outcomes[:3]:
        assert isinstance(refusal, Refusal)
        assert refusal.cause is Cause.STORAGE
    assert id_in(outcomes[3]) == there[0]


async def test_while_a_commit_is_unknown_nothing_is_read(table: Table, unique: Unique) -> None:
    first = await under_way(table, asyncio.create_task(unique.enqueue([request("k")])))
    second = asyncio.create_task(unique.enqueue([request("k")]))
    await asyncio.sleep(0)
    table.away, table.failure = "it is away", StorageUnavailable("it is away")
    table.go.set()

    for call in (first, second):
        (refusal,) = await call
        assert isinstance(refusal, Refusal)
        assert refusal.cause is Cause.STORAGE
    assert len(table.commits) == 1


async def test_a_task_that_postgres_refuses_is_refused_to_all_that_would_name_it(table: Table, unique: Unique) -> None:
    table.go.set()
    bad, leaning, good = request("bad"), request("bad"), request("good")
    table.failure = TasksRejected({bad.tasks[0][0]: "it cannot be kept"})

    outcomes = await unique.enqueue([bad, leaning, good])

    assert [isinstance(outcome, Refusal) for outcome in outcomes] == [True, True, False]


async def test_an_idempotency_key_is_committed_with_the_answer_that_is_given(table: Table, unique: Unique) -> None:
    table.go.set()
    first = request("k")
    await unique.enqueue([first])

    (outcome,) = await unique.enqueue([request("k", once="again")])

    (used,) = table.keys
    assert used[0] == "again"
    assert used[2] == outcome
    assert used[4] == [first.tasks[0][0]]


async def test_what_an_earlier_call_has_brought_is_answered_as_new(table: Table, unique: Unique) -> None:
    table.go.set()
    one = request("k")
    table.known.add(one.tasks[0][0])

    assert await unique.enqueue([one], again=True) == [None]
    assert await unique.enqueue([one]) == [None]
    assert table.commits == []


async def test_a_caller_that_goes_away_ends_nothing_for_the_others(table: Table, unique: Unique) -> None:
    first = await under_way(table, asyncio.create_task(unique.enqueue([request("k")])))
    second = asyncio.create_task(unique.enqueue([request("k")]))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    table.go.set()

    assert id_in((await second)[0]) == table.commits[0][0]


REPLACE = Wish(NOT_ENDED, on_conflict=OnConflict.REPLACE)


async def test_without_room_for_one_those_that_lean_on_it_are_refused_and_the_others_decided_anew(
    table: Table, unique: Unique
) -> None:
    table.go.set()
    await unique.enqueue([request("there")])
    full, leaning, good = request("full", "there", wish=REPLACE), request("full", "mine"), request("there", "good")
    on_both = request("mine")
    table.full = {full.tasks[0][0]}

    outcomes = await unique.enqueue([full, leaning, good, on_both])

    assert [isinstance(outcome, Refusal) and outcome.cause for outcome in outcomes] == [
        Cause.FULL,
        Cause.FULL,
        False,
        Cause.FULL,
    ]
    assert table.commits[1:] == [
        [full.tasks[0][0], leaning.tasks[1][0], good.tasks[1][0]], [good.tasks[1][0]]
    ]  # fmt: skip
    assert table.rows["Note", "there"][0] == table.commits[0][0]
    assert not {("Note", "full"), ("Note", "mine")} & table.rows.keys()


async def test_the_last_of_those_that_replace_at_once_is_what_the_task_is_then(table: Table, unique: Unique) -> None:
    table.go.set()
    (first,) = (await unique.enqueue([request("k", wish=REPLACE)]),)
    there = table.rows["Note", "k"][0]
    requests = [request("k", wish=REPLACE)._replace(tasks=[_with(b"%d" % n, "k")]) for n in range(3)]

    outcomes = await unique.enqueue(requests)

    assert first == [None]
    assert {id_in(outcome) for outcome in outcomes} == {there}
    assert all(isinstance(outcome, bytes) and json.loads(outcome)["tasks"][0]["replaced"] for outcome in outcomes)
    assert table.rows["Note", "k"][:2] == (there, b"2")
    assert table.commits[1:] == [[]]


async def test_what_has_just_begun_is_looked_at_again(table: Table, unique: Unique) -> None:
    table.go.set()
    await unique.enqueue([request("k")])
    table.stale = 2

    outcomes = await unique.enqueue([request("k", "new", wish=REPLACE)])
    table.stale = 100
    never = await unique.enqueue([request("k", wish=REPLACE)])

    assert id_in(outcomes[0]) == table.commits[0][0]
    assert table.looked_for == 2 + TRIES
    assert isinstance(never[0], Refusal)
    assert never[0].cause is Cause.STORAGE


def _with(payload: bytes, key: str) -> NewTask:
    return (next(_ids).to_bytes(16), payload, OPTIONS, 0.0, NO_TERMS._replace(unique_key=key))


def note(system: System, ledger: Ledger, key: str) -> list[NewTask]:
    made = system.make("Note", {"ledger": ledger.path, "n": 1})
    return [(*task[:4], NO_TERMS._replace(unique_key=key)) for task in made]


def test_a_queue_actor_killed_between_commit_and_answer_leaves_one_task(
    deploy: Deploy, ledger: Ledger, database: str, standby: Callable[[str], None]
) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    ever = [Wish(tuple(State))]
    tasks = note(system, ledger, "k")
    standby("nobody")
    first = system.start_unique(tasks, ever)
    eventually(lambda: _commits_that_wait(database))

    system.kill_queue()
    standby("")
    others = [system.start_unique(note(system, ledger, "k"), ever) for _ in range(3)]

    # The first call is repeated by the gateway and finds its own task; the others stand for clients that try again.
    assert "existing" not in json.loads(first.result(timeout=60))["tasks"][0]
    for other in others:
        answer: dict[str, Any] = json.loads(other.result(timeout=60))["tasks"][0]
        assert (id_in(json.dumps({"tasks": [answer]}).encode()), answer["existing"]) == (tasks[0][0], True)
    assert system.ended(tasks[0][0]).state is State.SUCCEEDED
    assert system.states() == {State.SUCCEEDED: 1}
    assert ledger.runs() == {1: 1}


def _commits_that_wait(database: str) -> bool:
    with psycopg.connect(database) as connection:
        cursor = connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'"
            " AND application_name = 'asyncproc-queue'"
        )
        return cursor.rowcount > 0
