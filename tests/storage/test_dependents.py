"""Tasks that wait for tasks, as the tables keep them."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from asyncproc.core.decision import Depends, Writes
from asyncproc.core.dependents import UNTIL_RELEASED
from asyncproc.core.events import Released
from asyncproc.core.states import State
from asyncproc.core.task import OnParentFailure, Task, TaskId
from asyncproc.storage import dependents
from asyncproc.storage.batch import COPY_FROM, build
from asyncproc.storage.cycle import Committed, Storage
from asyncproc.storage.inspector import Inspector
from tests.storage.table import ERROR, NOW, a_task, done, live, page, query, write


@pytest.fixture
async def inspector(database: str) -> AsyncIterator[Inspector]:
    inspector = Inspector(database)
    await inspector.open()
    yield inspector
    await inspector.close()


def a_child(*parents: Task, policy: str = "fail", not_before: float = NOW) -> tuple[Task, Depends]:
    child = a_task(State.BLOCKED, ready_at=UNTIL_RELEASED)
    return child, (child.id, tuple(parent.id for parent in parents), policy, b"", not_before)


async def enqueue(storage: Storage, tasks: list[Task], *children: tuple[Task, Depends]) -> Committed:
    depends = [depend for _, depend in children]
    parents = list(dict.fromkeys(parent for depend in depends for parent in depend[1]))
    return await write(storage, inserts=[*tasks, *(child for child, _ in children)], depends=depends, parents=parents)


def ending(*parents: Task) -> dict[str, Any]:
    return {"succeeded": [(task.id, 1, b"1") for task in parents], "parents": [task.id for task in parents]}


def ids(released: Released | None) -> set[TaskId]:
    return set() if released is None else {task.id for task in released.tasks}


@pytest.mark.parametrize("size", [2, COPY_FROM])
async def test_children_are_released_with_the_end_of_their_last_parent(
    storage: Storage, database: str, size: int
) -> None:
    first, second = a_task(State.RUNNING), a_task(State.RUNNING)
    late = a_child(first, not_before=NOW + 60)
    children = [a_child(first, second) for _ in range(size)]
    committed = await enqueue(storage, [first, second], late, *children)
    assert committed == Committed()
    assert await page(storage, None) == []
    assert {row["state"] for row in live(database).values()} == {"running", "blocked"}
    assert live(database)[late[0].id]["depends_on"] is not None

    committed = await write(storage, **ending(first))
    assert ids(committed.released) == {late[0].id}
    assert live(database)[late[0].id]["ready_at"].timestamp() == NOW + 60
    committed = await write(storage, **ending(second))

    assert committed.released is not None
    assert ids(committed.released) == {child.id for child, _ in children}
    assert {(task.state, task.ready_at) for task in committed.released.tasks} == {(State.SCHEDULED, NOW)}
    assert query(database, "SELECT count(*) FROM asyncproc.task_edge") == [(0,)]
    assert [task.id for task in await page(storage, None)] == [*(child.id for child, _ in children), late[0].id]


async def test_a_replay_loses_no_child_and_releases_none_twice(storage: Storage, database: str) -> None:
    parent, other = a_task(State.RUNNING), a_task(State.RUNNING)
    waits = a_child(other)
    child, fresh = a_child(parent), a_child(parent)
    await enqueue(storage, [parent, other], child, waits)
    batch = build(Writes(inserts=[fresh[0]], depends=[fresh[1]], **ending(parent)), NOW)
    assert ids((await storage.commit(batch, [], False)).released) == {child[0].id, fresh[0].id}
    before = live(database), query(database, "SELECT * FROM asyncproc.task_edge")

    again = await storage.commit(batch, [], True)

    assert again.released == Released([], NOW)
    assert again.refused == []
    assert (live(database), query(database, "SELECT * FROM asyncproc.task_edge")) == before
    assert [task.id for task in await page(storage, None)] == [child[0].id, fresh[0].id]


@pytest.mark.parametrize("end", ["failed", "cancelled", "overdue", "missing"])
async def test_what_a_failed_parent_does_to_its_children_goes_on_to_theirs(
    storage: Storage, database: str, end: str
) -> None:
    parent, alive = a_task(State.QUEUED if end == "overdue" else State.RUNNING), a_task(State.RUNNING)
    await write(storage, inserts=[alive] if end == "missing" else [parent, alive])
    fails, skips, runs = (a_child(parent, policy=policy) for policy in OnParentFailure)
    fails_too, runs_too = a_child(alive, skips[0]), a_child(fails[0], policy="run")
    ends: dict[str, Any] = {
        "failed": {"failed": [(parent.id, 1, "Boom", ERROR)]},
        "cancelled": {"cancelled": [(parent.id, 1, "no")]},
        "overdue": {"overdue": [(parent.id, 0, "late", ERROR)]},
        "missing": {},
    }
    family = [fails, skips, runs, fails_too, runs_too]

    depends = [depend for _, depend in family]
    parents = list(dict.fromkeys(parent for depend in depends for parent in depend[1]))
    committed = await write(
        storage, inserts=[child for child, _ in family], depends=depends, parents=parents, **ends[end]
    )

    assert ids(committed.released) == {runs[0].id, runs_too[0].id}
    rows = done(database)
    assert [rows[child.id]["state"] for child in (fails[0], skips[0], fails_too[0])] == [
        "failed",
        "cancelled",
        "failed",
    ]
    assert rows[fails[0].id]["error"] == (
        f"ParentFailed: task {UUID(bytes=parent.id)}, which it depends on, did not succeed"
    )
    assert rows[fails[0].id]["errors"][0]["type"] == "ParentFailed"
    assert len({rows[child.id]["fingerprint"] for child in (fails[0], fails_too[0])}) == 1
    assert query(database, "SELECT count(*) FROM asyncproc.task_edge") == [(0,)]


async def test_what_is_too_much_for_one_commit_is_owed_and_a_new_reign_finds_it(
    storage: Storage, successor: Storage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependents, "MOST", 3)
    good, bad = a_task(State.RUNNING), a_task(State.RUNNING)
    released, failing = [a_child(good) for _ in range(5)], [a_child(bad) for _ in range(4)]
    await enqueue(storage, [good, bad], *released, *failing, a_child(failing[0][0], failing[-1][0]))

    committed = await write(storage, **ending(good))
    assert committed.released is not None
    assert len(committed.released.tasks) == 3
    assert committed.released.owed == [good.id]
    committed = await write(storage, failed=[(bad.id, 1, "Boom", ERROR)], parents=[bad.id])
    assert committed.released is not None
    assert len(done(database)) == 2 + 3

    await successor.take_over()
    owed = (await successor.load({}, 60.0)).owed
    assert owed is not None
    assert {good.id, bad.id} <= set(owed)
    while owed:
        found = (await write(successor, parents=owed)).released
        owed = [] if found is None else found.owed
    assert {row["state"] for row in live(database).values()} == {"scheduled"}
    assert len(live(database)) == 5
    assert len(done(database)) == 2 + 5


async def test_a_child_is_not_written_before_its_parents_where_a_batch_is_taken_apart(
    storage: Storage, database: str
) -> None:
    tasks = [a_task() for _ in range(4)]
    children = [a_child(task) for task in tasks]
    bad = a_task(payload=b"{")
    orphan = a_child(bad)

    committed = await enqueue(storage, [*tasks, bad], *children, orphan)

    assert set(committed.rejected) == {bad.id, orphan[0].id}
    assert committed.released == Released([], NOW)
    assert done(database) == {}
    assert [live(database)[child.id]["state"] for child, _ in children] == ["blocked"] * 4


async def test_a_child_that_ends_while_it_waits_lets_go_of_its_parents(storage: Storage, database: str) -> None:
    parent = a_task(State.RUNNING)
    child = a_child(parent)
    await enqueue(storage, [parent], child)

    await write(storage, cancelled=[(child[0].id, 0, "no")], parents=[child[0].id])

    assert done(database)[child[0].id]["depends_on"] == [UUID(bytes=parent.id)]
    assert query(database, "SELECT count(*) FROM asyncproc.task_edge") == [(0,)]


async def test_a_running_task_reads_how_its_parents_ended_part_by_part(
    storage: Storage, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncproc.storage.inspector.PARENTS_AT_ONCE", 2)
    good, large, bad, gone = (a_task(State.RUNNING) for _ in range(4))
    child, depend = a_child(good, large, bad, gone, policy="run")
    await enqueue(storage, [good, large, bad], (child, (*depend[:3], b'{"a": "x"}', depend[4])))
    results = [(good.id, 1, b"7"), (large.id, 1, b'"%s"' % (b"x" * 1000))]
    await write(storage, succeeded=results, failed=[(bad.id, 1, "Boom", ERROR)], parents=list(depend[1]))

    assert await inspector.parents(child.id, 0) == (
        4, '{"a": "x"}', [(good.id, "succeeded", b"7", None), (large.id, "succeeded", results[1][2], None)]
    )  # fmt: skip
    assert await inspector.parents(child.id, 2) == (
        4, None, [(bad.id, "failed", None, "Boom"), (gone.id, None, None, None)]
    )  # fmt: skip
    monkeypatch.setattr("asyncproc.storage.inspector.PARENTS_BYTES", 1)
    assert len((await inspector.parents(child.id, 0))[2]) == 1
    assert await inspector.parents(good.id, 0) == (0, None, [])
