"""Who holds a unique key is read from both tables, by index."""

from collections.abc import AsyncIterator
from typing import Any, Final

import psycopg
import pytest

from asyncproc.core.decision import Replaced
from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import FINAL, State
from asyncproc.core.task import Options, Task, Terms, TimeLimits
from asyncproc.core.unique import NOT_ENDED, WAITING, Holder, Wanted
from asyncproc.storage.batch import COPY_FROM
from asyncproc.storage.connection import READER_OPTIONS, hardened
from asyncproc.storage.cycle import Committed, Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.statements import unique
from tests.storage.table import ERROR, NOW, a_task, live, query, write, write_again

ALL = tuple(State)


@pytest.fixture
async def inspector(database: str) -> AsyncIterator[Inspector]:
    inspector = Inspector(database, 1)
    await inspector.open()
    yield inspector
    await inspector.close()


def holding(state: State = State.QUEUED, key: str = "k", **changes: object) -> Task:
    return a_task(state, terms=Terms(unique_key=key), **changes)


def wanted(key: str = "k", states: tuple[State, ...] = NOT_ENDED, since: float = 0.0, type_: str = "send") -> Wanted:
    return Wanted(type_, key, states, since)


@pytest.mark.parametrize("size", [1, COPY_FROM])
async def test_a_key_is_kept_with_its_task_until_it_is_forgotten(
    storage: Storage, inspector: Inspector, size: int
) -> None:
    tasks = [holding(State.RUNNING, f"k{n}") for n in range(size)]
    await write(storage, inserts=tasks)
    first = tasks[0]
    expected = Holder(first.id, State.RUNNING, 2, "mail")

    assert await inspector.holders([wanted("k0"), wanted("other")]) == {wanted("k0"): expected}

    await write(storage, failed=[(first.id, 1, "broke", ERROR)])
    ended = wanted("k0", (State.FAILED,))
    assert await inspector.holders([wanted("k0"), ended]) == {ended: expected._replace(state=State.FAILED)}
    record = await inspector.task(first.id)
    assert record is not None
    assert record.unique_key == "k0"

    await write(storage, revived=[(first.id, NOW, NOW)])
    assert await inspector.holders([wanted("k0")]) == {wanted("k0"): expected._replace(state=State.QUEUED)}


async def test_type_states_and_instant_narrow_what_is_found(storage: Storage, inspector: Inspector) -> None:
    running, old = holding(State.RUNNING), holding(key="old", created_at=NOW - 100.0)
    await write(storage, inserts=[running, old])
    asked = [
        wanted(states=WAITING), wanted(type_="other"), wanted(states=(State.RUNNING,)),
        wanted("old", since=NOW - 101.0), wanted("old", since=NOW - 99.0),
    ]  # fmt: skip

    found = await inspector.holders(asked)

    assert {asked.index(one): holder.id for one, holder in found.items()} == {2: running.id, 3: old.id}


async def test_one_that_waits_is_named_before_one_that_runs_and_that_before_one_that_ended(
    storage: Storage, inspector: Inspector
) -> None:
    ended, running, waiting = holding(State.RUNNING), holding(State.RUNNING), holding()
    await write(storage, inserts=[ended, running, waiting])
    await write(storage, succeeded=[(ended.id, 1, b"1")])
    orders = [(ALL, waiting), ((State.RUNNING, *FINAL), running), (tuple(FINAL), ended)]

    found = await inspector.holders([wanted(states=states) for states, _ in orders])

    assert [found[wanted(states=states)].id for states, _ in orders] == [task.id for _, task in orders]


async def test_holders_are_found_by_index_and_those_that_ended_only_where_they_are_asked_for(
    storage: Storage, database: str
) -> None:
    await write(storage, inserts=[holding(key=f"k{n}") for n in range(100)])
    query(database, "ANALYZE asyncproc.task_live")
    # What is asked for is a row of its own here, as it is to the planner.
    text = unique.HOLDERS.replace("%s::float8[]", "ARRAY[0::float8]")
    for value in ("send", "k7", "queued,failed"):
        text = text.replace("%s::text[]", f"ARRAY['{value}']", 1)
    with psycopg.connect(hardened(database, "plans", f"{READER_OPTIONS} -c enable_seqscan=off"), autocommit=True) as c:
        plan = "\n".join(row[0] for row in c.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {text}".encode()))

    assert "task_live_unique" in plan
    assert "Seq Scan" not in plan
    succeeded = [line for line in plan.splitlines() if "task_done_succeeded" in line and "Scan" in line]
    failed = [line for line in plan.splitlines() if "task_done_failed" in line and "Scan" in line]
    assert succeeded
    assert all("never executed" in line for line in succeeded)
    assert any("never executed" not in line for line in failed)


CONTENT: Final = Options(
    "send", "other", 7, RetryPolicy(9, 1.0, 2.0, 3.0, 0.5), "you", TimeLimits(4.0, 2.0), "c", "f", "t"
)


def replacing(task: Task, state: State = State.QUEUED, payload: bytes = b'{"new": 1}') -> Replaced:
    new = (task.id, payload, CONTENT, 0.0, Terms(NOW + 60.0, NOW + 90.0, "k"))
    was = (task.state, task.options.priority, task.queue, task.ready_at)
    return (task.id, task.lease, *was, state, NOW + 5.0, None if state is State.SCHEDULED else 1.5, new)


async def test_a_task_that_waits_has_all_of_the_other(storage: Storage, inspector: Inspector) -> None:
    task, other = holding(), holding(key="other")
    await write(storage, inserts=[task, other])
    for committed in (
        await write(storage, replaced=[replacing(task, State.SCHEDULED)]),
        await write_again(storage, replaced=[replacing(task, State.SCHEDULED)]),
    ):
        assert committed == Committed()

    now = (await inspector.live_tasks([task.id, b"n" * 16]))[task.id]

    assert (now.payload, now.options) == (b'{"new": 1}', CONTENT)
    assert (now.state, now.ready_at, now.created_at) == (State.SCHEDULED, NOW + 5.0, task.created_at)
    assert now.terms == Terms(NOW + 60.0, NOW + 90.0, "k")
    untouched = (await inspector.live_tasks([other.id]))[other.id]
    assert (untouched.payload, untouched.options) == (other.payload, other.options)


async def test_a_task_is_replaced_and_claimed_in_one_commit_and_again(storage: Storage, database: str) -> None:
    task = holding()
    await write(storage, inserts=[task])
    writes: dict[str, Any] = {"replaced": [replacing(task)], "claims": [(task.id, 1, 1, 1.5, "w")]}

    assert await write(storage, **writes) == Committed()
    before = live(database)
    assert await write_again(storage, **writes) == Committed()

    assert live(database) == before
    assert (before[task.id]["state"], before[task.id]["payload"]) == ("running", {"new": 1})


@pytest.mark.parametrize("change", [{"lease": 1}, {"state": "'retrying'"}, {"priority": 3}, {"queue": "'elsewhere'"}])
async def test_one_that_is_not_as_it_was_is_left_alone(storage: Storage, database: str, change: dict[str, Any]) -> None:
    task = holding()
    await write(storage, inserts=[task])
    ((column, value),) = change.items()
    query(database, f"UPDATE asyncproc.task_live SET {column} = {value}")

    assert (await write(storage, replaced=[replacing(task)])).refused == [task.id]

    assert live(database)[task.id]["payload"] == {"n": 1}


async def test_content_that_postgres_refuses_fails_alone(storage: Storage, database: str) -> None:
    bad, good = holding(), holding(key="good")
    await write(storage, inserts=[bad, good])

    committed = await write(storage, replaced=[replacing(bad, payload=b"{"), replacing(good)])

    assert set(committed.rejected) == {bad.id}
    assert [live(database)[task.id]["payload"] for task in (bad, good)] == [{"n": 1}, {"new": 1}]
