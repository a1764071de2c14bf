import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from asyncproc.core.decision import PageWanted, Writes
from asyncproc.core.states import State
from asyncproc.core.task import Task
from asyncproc.storage.batch import COPY_FROM, build
from asyncproc.storage.connection import Connection
from asyncproc.storage.cycle import Committed, Storage
from tests.storage.table import (
    ERROR,
    LANE,
    NOW,
    START,
    a_task,
    claim,
    done,
    live,
    query,
    until,
    waits_for_a_lock,
    write,
    write_again,
)


def many() -> list[Task]:
    states = [State.QUEUED, State.RUNNING, State.SCHEDULED]
    return [
        a_task(
            states[n % 3],
            payload=f'{{"naïve": {n}}}'.encode(),
            ready_at=NOW + n / 7,
            priority=n,
            type=f"ü{n % 4}",
            resources="gpu1" * (n % 2),
        )
        for n in range(COPY_FROM)
    ]


async def test_copy_and_insert_write_equal_rows(storage: Storage, database: str) -> None:
    tasks = many()
    await write(storage, inserts=tasks)
    copied = live(database)
    query(database, "TRUNCATE asyncproc.task_live")

    await write_again(storage, inserts=tasks)

    assert len(copied) == len(tasks)
    assert live(database) == copied


async def test_a_row_comes_back_as_the_task_it_was(storage: Storage) -> None:
    tasks = [a_task(payload='{"a": 1e5000, "ü": [1,  2]}'.encode()), a_task(ready_at=round(NOW + 0.3, 6))]
    await write(storage, inserts=tasks)

    committed = await storage.commit(None, [PageWanted("mail", LANE, START, 10)], False)

    assert [_fields(task) for task in committed.pages[0].tasks] == [_fields(task) for task in tasks]


async def test_a_task_is_inserted_and_claimed_in_one_commit(storage: Storage, database: str) -> None:
    fresh, waiting = a_task(State.RUNNING), a_task()
    await write(storage, inserts=[waiting])

    committed = await write(storage, inserts=[fresh], claims=[claim(waiting)])

    assert committed == Committed()
    for row in live(database).values():
        assert (row["state"], row["lease"], row["attempt"], row["worker"]) == ("running", 1, 1, "w")
        assert row["started_at"].timestamp() == NOW


async def test_success_moves_the_row_with_its_result(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    before = live(database)[task.id]

    await write(storage, succeeded=[(task.id, 1, b'{"sent": true}')])

    assert live(database) == {}
    row = done(database)[task.id]
    assert (row["state"], row["result"], row["finished_at"].timestamp()) == ("succeeded", {"sent": True}, NOW)
    kept = before.keys() & row.keys() - {"state"}
    assert {name: row[name] for name in kept} == {name: before[name] for name in kept}


async def test_the_last_failure_moves_the_row_with_its_error(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])

    await write(storage, failed=[(task.id, 1, "Boom: it broke", ERROR)])

    row = done(database)[task.id]
    assert (row["state"], row["error"], row["result"]) == ("failed", "Boom: it broke", None)
    assert len(row["errors"]) == 1
    assert row["errors"][0].items() >= {"attempt": 1, "worker": "w", **json.loads(ERROR)}.items()
    assert row["errors"][0].keys() >= {"startedAt", "failedAt"}


async def test_a_failure_that_is_retried_waits_without_a_rank(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])

    await write(storage, retried=[(task.id, 1, NOW + 5, 0, "Boom: it broke", ERROR)])
    await write(storage, claims=[claim(task, lease=2)])
    await write(storage, retried=[(task.id, 2, NOW + 9, 0, "Boom: it broke", ERROR)])

    row = live(database)[task.id]
    assert (row["state"], row["rank"], row["ready_at"].timestamp()) == ("retrying", None, NOW + 9)
    assert [error["attempt"] for error in row["errors"]] == [1, 2]


async def test_an_error_record_is_kept_whatever_its_text(storage: Storage, database: str) -> None:
    for message in ("\\u0000", "\\ud800", '\\"}', "{"):
        task = a_task(State.RUNNING)
        await write(storage, inserts=[task])

        await write(storage, failed=[(task.id, 1, "Boom", b'{"type": "Boom", "message": "%s"}' % message.encode())])

        texts = query(database, "SELECT errors[1]::text FROM asyncproc.task_done WHERE id = %s", UUID(bytes=task.id))
        ((text,),) = texts
        assert json.loads(text)["message"] == json.loads(f'"{message}"')


async def test_a_lost_attempt_is_given_back(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])

    await write(storage, requeued=[(task.id, 1, 1)])

    row = live(database)[task.id]
    assert (row["state"], row["attempt"], row["lease"], row["losses"], row["worker"]) == ("queued", 0, 1, 1, None)
    assert row["rank"] == task.rank


async def test_a_failed_task_is_revived_with_its_errors_and_its_lease(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    await write(storage, failed=[(task.id, 1, "Boom", ERROR)])

    committed = await write(storage, revived=[(task.id, NOW + 1, 7.0)])

    assert committed == Committed()
    assert done(database) == {}
    row = live(database)[task.id]
    assert (row["state"], row["attempt"], row["lease"], row["rank"]) == ("queued", 0, 1, 7.0)
    assert len(row["errors"]) == 1


@pytest.mark.parametrize("state", [State.SCHEDULED, State.RETRYING])
async def test_what_comes_due_gets_its_rank(storage: Storage, database: str, state: State) -> None:
    task = a_task(state)
    await write(storage, inserts=[task])

    await write(storage, came_due=[(task.id, 3.5)])

    row = live(database)[task.id]
    assert (row["state"], row["rank"]) == ("queued", 3.5)


ENDINGS: dict[str, Any] = {
    "succeeded": lambda task: (task.id, 1, b"1"),
    "failed": lambda task: (task.id, 1, "Boom", ERROR),
    "retried": lambda task: (task.id, 1, NOW, 0, "Boom", ERROR),
    "requeued": lambda task: (task.id, 1, 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_doubled_ending_changes_nothing(storage: Storage, database: str, ending: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    await write(storage, **{ending: [ENDINGS[ending](task)]})
    once = live(database), done(database)

    await write(storage, **{name: [row(task)] for name, row in ENDINGS.items()})

    assert (live(database), done(database)) == once


@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_ending_of_a_lost_lease_changes_nothing(storage: Storage, database: str, ending: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    await write(storage, requeued=[(task.id, 1, 0)], claims=[claim(task, lease=2)])
    current = live(database)

    await write(storage, **{ending: [ENDINGS[ending](task)]})

    assert live(database) == current
    assert done(database) == {}


async def test_starts_that_the_table_does_not_hold_are_refused(storage: Storage, database: str) -> None:
    gone, newer, good, there = a_task(), a_task(), a_task(), a_task(State.RUNNING)
    await write(storage, inserts=[newer, good, there])
    query(database, "UPDATE asyncproc.task_live SET lease = 9 WHERE id = %s", UUID(bytes=newer.id))
    there_again = a_task(State.RUNNING)
    there_again.id, there_again.lease = there.id, 5

    committed = await write(storage, inserts=[there_again], claims=[claim(gone), claim(newer), claim(good)])

    assert set(committed.refused) == {gone.id, newer.id, there.id}
    assert live(database)[good.id]["state"] == "running"


async def test_a_claim_of_what_already_runs_is_refused(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    before = live(database)

    committed = await write(storage, claims=[claim(task, lease=2, worker="v")])

    assert committed.refused == [task.id]
    assert live(database) == before


async def test_a_revival_of_what_is_not_failed_is_refused(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    await write(storage, succeeded=[(task.id, 1, b"1")])

    committed = await write(storage, revived=[(task.id, NOW, 1.0)])

    assert committed.refused == [task.id]
    assert done(database)[task.id]["state"] == "succeeded"


async def test_every_replay_of_a_batch_changes_nothing(storage: Storage, database: str) -> None:
    running = [a_task(State.RUNNING) for _ in range(4)]
    due, waiting, dead = a_task(State.SCHEDULED), a_task(), a_task(State.RUNNING)
    await write(storage, inserts=[*running, due, waiting, dead])
    await write(storage, failed=[(dead.id, 1, "Boom", ERROR)])
    batch = build(
        Writes(
            **{name: [row(task)] for task, (name, row) in zip(running, ENDINGS.items(), strict=True)},
            revived=[(dead.id, NOW, 1.0)],
            came_due=[(due.id, 2.0)],
            inserts=many(),
            claims=[claim(waiting), claim(due), claim(running[2], lease=2), claim(dead, lease=2)],
        ),
        NOW,
    )
    assert await storage.commit(batch, [], False) == Committed()
    once = live(database), done(database)

    for _ in range(2):
        assert await storage.commit(batch, [], True) == Committed()

    assert (live(database), done(database)) == once


async def test_a_replay_does_not_bring_back_what_was_finished_since(storage: Storage, database: str) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    await write(storage, succeeded=[(task.id, 1, b"1")])

    committed = await write_again(storage, inserts=[task])

    assert live(database) == {}
    assert committed.refused == [task.id]


async def test_a_claim_stays_on_its_page(storage: Storage, database: str) -> None:
    tasks = [a_task(payload=b'"%s"' % (b"x" * 200)) for _ in range(500)]
    await write(storage, inserts=tasks)
    for start in range(0, 500, 50):
        await write(storage, claims=[claim(task) for task in tasks[start : start + 50]])
    await storage.close()

    async def counted() -> bool:
        ((updates, hot),) = query(
            database,
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'asyncproc.task_live'::regclass",
        )
        assert hot == updates, f"{updates - hot} of {updates} claims were not HOT"
        return bool(updates == 500)

    await until(counted)


async def test_a_commit_that_is_cancelled_leaves_nothing_half_done(
    storage: Storage, database: str, bystander: Connection
) -> None:
    task = a_task(State.RUNNING)
    await write(storage, inserts=[task])
    async with bystander.transaction():
        await bystander.execute("SELECT 1 FROM asyncproc.task_live FOR UPDATE")
        blocked = asyncio.create_task(write(storage, succeeded=[(task.id, 1, b"1")]))
        await until(lambda: waits_for_a_lock(bystander, 1))
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked

    assert live(database)[task.id]["state"] == "running"
    assert await write(storage, succeeded=[(task.id, 1, b"1")]) == Committed()


async def test_calls_take_turns(storage: Storage, database: str) -> None:
    tasks = [a_task() for _ in range(20)]

    await asyncio.gather(*(write(storage, inserts=[task]) for task in tasks), storage.load({}, 60.0))

    assert live(database).keys() == {task.id for task in tasks}


def _fields(task: Task) -> tuple[object, ...]:
    return tuple(getattr(task, name) for name in Task.__slots__)
