"""What operators set at run time, as the tables keep it."""

import pytest

from asyncproc.changes import Delete, Drain, PauseFor, Put, Resume, RuleChange
from asyncproc.core.states import State
from asyncproc.core.steering import Pause
from asyncproc.errors import EpochLost
from asyncproc.rules import Stored
from asyncproc.storage import ranks, steering
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import FIRST_NOT_READY, FIRST_READY, Inspector
from asyncproc.storage.steering import Purge
from tests.storage.table import NOW, a_task, live, query, write


async def change(storage: Storage, asked: RuleChange, now: float = NOW) -> tuple[bool, Stored]:
    return await storage.between(steering.change, asked, now)


async def test_settings_are_laid_on_top_of_what_is_stored_and_null_takes_them_away(storage: Storage) -> None:
    await change(storage, Put("queue", "mail", b'{"weight": 3, "timeout": "30s", "maxRunning": "off"}', "create"))
    done, stored = await change(storage, Put("queue", "mail", b'{"weight": 4, "timeout": null}', "merge"))

    rules = stored.queues["mail"]
    assert done
    assert (rules.weight, rules.timeout, rules.max_running, rules.priority) == (4, None, 0, None)


async def test_what_is_replaced_is_forgotten(storage: Storage) -> None:
    await change(storage, Put("type", "Send", b'{"priority": 3}', "create"))
    _, stored = await change(storage, Put("type", "Send", b'{"maxRunning": 2}', "replace"))

    assert (stored.types["Send"].priority, stored.types["Send"].max_running) == (None, 2)


async def test_what_is_there_is_not_created(storage: Storage) -> None:
    await change(storage, Put("rate", "smtp", b'{"rate": "60/min"}', "create"))
    done, stored = await change(storage, Put("rate", "smtp", b'{"rate": "1/s"}', "create"))

    assert not done
    assert stored.rates["smtp"].rate == "60/min"


async def test_every_change_counts_the_version_on(storage: Storage, database: str) -> None:
    inspector = Inspector(database)
    await inspector.open()
    try:
        before = await inspector.steering_version()
        _, stored = await change(storage, Drain("mail"))

        assert (stored.version, await inspector.steering_version()) == (before + 1, before + 1)
        assert await inspector.stored() == stored
    finally:
        await inspector.close()


async def test_a_pause_is_kept_with_who_and_why_until_it_is_over(storage: Storage) -> None:
    await change(storage, PauseFor(Pause("queue", "mail", reason="relay is down", by="ada"), for_s=60.0))
    _, stored = await change(storage, PauseFor(Pause("all", "")))
    assert set(stored.pauses) == {
        Pause("queue", "mail", NOW + 60.0, "relay is down", "ada", NOW),
        Pause("all", "", 0.0, "", "", NOW),
    }

    _, stored = await change(storage, Resume("all", ""), NOW + 59)
    assert [pause.name for pause in stored.pauses] == ["mail"]
    _, stored = await change(storage, Resume("type", "Other"), NOW + 61)
    assert stored.pauses == (), "a pause that is over goes with the next resume"


async def test_a_queue_that_is_resumed_or_deleted_takes_tasks_again(storage: Storage) -> None:
    _, stored = await change(storage, Drain("mail"))
    assert stored.draining == {"mail": NOW}
    _, stored = await change(storage, Drain("mail"), NOW + 5)
    assert stored.draining == {"mail": NOW}

    _, stored = await change(storage, Resume("queue", "mail"))
    assert stored.draining == {}
    await change(storage, Drain("mail"))
    await change(storage, PauseFor(Pause("queue", "mail")))
    _, stored = await change(storage, Delete("queue", "mail"))
    assert (stored.draining, stored.pauses) == ({}, ())


async def test_settings_of_a_later_release_are_left_out(storage: Storage, database: str) -> None:
    settings = '{"weight": 2, "colour": 1, "aging": 0}'
    query(database, "INSERT INTO asyncproc.stored_settings VALUES ('queue', 'mail', %s)", settings)
    stored = await storage.between(steering.stored)

    assert stored.queues["mail"].model_dump(exclude_none=True) == {"weight": 2}


async def test_a_reign_that_is_over_changes_nothing(storage: Storage, successor: Storage) -> None:
    await successor.take_over()
    with pytest.raises(EpochLost):
        await change(storage, Drain("mail"))
    assert (await successor.between(steering.stored)).draining == {}


async def test_a_purge_is_known_to_whoever_takes_over(storage: Storage) -> None:
    await storage.between(steering.begin_purge, "mail", NOW)
    await storage.between(steering.count_purged, "mail", 7)
    assert await storage.between(steering.purges) == [Purge("mail", NOW, 7)]

    await storage.between(steering.begin_purge, "mail", NOW + 1)
    await storage.between(steering.end_purge, Purge("mail", NOW))
    assert await storage.between(steering.purges) == [Purge("mail", NOW + 1, 7)], "asked for anew meanwhile"
    await storage.between(steering.end_purge, Purge("mail", NOW + 1))
    assert await storage.between(steering.purges) == []


async def test_all_that_waits_in_a_queue_is_read_part_by_part(storage: Storage, database: str) -> None:
    mail = [a_task(fairness_key=key, rank=rank) for key in ("", "a") for rank in (1.0, 2.0)]
    later = [a_task(State.SCHEDULED, ready_at=NOW + n) for n in range(3)]
    await write(storage, inserts=[*mail, *later, a_task(State.RUNNING), a_task(queue="other")])
    inspector = Inspector(database)
    await inspector.open()
    try:
        first = await inspector.ready("mail", FIRST_READY, 3)
        rest = await inspector.ready("mail", first[-1][0], 3)
        waiting = await inspector.not_ready("mail", FIRST_NOT_READY, 2)
        last = await inspector.not_ready("mail", waiting[-1][0], 2)
    finally:
        await inspector.close()

    assert [place[-1] for place, _, _ in [*first, *rest]] == [task.id for task in mail]
    assert [place[-1] for place, _, _ in [*waiting, *last]] == [task.id for task in later]
    assert (first[0][1], first[0][2]) == (0, NOW)


async def test_ranks_are_computed_anew_but_for_what_runs(storage: Storage, database: str) -> None:
    waiting, running, other = a_task(), a_task(State.RUNNING), a_task(queue="other")
    await write(storage, inserts=[waiting, running, other])
    before = {task.id: task.rank for task in (running, other)}
    ids = [waiting.id, running.id, other.id]
    await storage.between(ranks.rank_some_anew, "mail", 5.0, ids)

    found = {task_id: row["rank"] for task_id, row in live(database).items()}
    assert found == {waiting.id: NOW - 10.0, **before}
    assert await storage.between(_lanes) == [("send", "", "", "")]


async def _lanes(connection: object, _: object) -> object:
    return await ranks.lanes(connection, "mail")  # type: ignore[arg-type]


async def test_ranks_that_a_reign_left_mixed_are_computed_anew_by_the_next_one(
    storage: Storage, successor: Storage, database: str
) -> None:
    await storage.load({}, 60.0)
    task = a_task(rank=1.0)
    await write(storage, inserts=[task])
    await storage.between(ranks.note_aging, "mail", ranks.MIXED_S)

    await successor.take_over()
    await successor.load({}, 60.0)
    assert live(database)[task.id]["rank"] == NOW - 120.0
