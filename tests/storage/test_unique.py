"""Who holds a unique key is read from both tables, by index."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from asyncproc.core.states import FINAL, State
from asyncproc.core.task import Task, Terms
from asyncproc.core.unique import NOT_ENDED, WAITING, Holder, Wanted
from asyncproc.storage.batch import COPY_FROM
from asyncproc.storage.connection import READER_OPTIONS, hardened
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.statements import unique
from tests.storage.table import ERROR, NOW, a_task, query, write

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
