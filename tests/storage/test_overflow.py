"""Who waits where a bound may be reached, and new rows that end in the commit that brings them."""

import pytest

from asyncproc.core.crowd import SPARE, Crowd, Place
from asyncproc.core.states import State
from asyncproc.core.steering import Overflow
from asyncproc.storage import overflow
from asyncproc.storage.batch import COPY_FROM
from asyncproc.storage.cycle import Storage
from tests.storage.table import a_task, done, live, write, write_again


async def count(storage: Storage, **limits: int) -> dict[Place, Crowd]:
    """Of queue `mail` and of keys of it."""
    places = {("mail", "" if key == "all" else key): limit for key, limit in limits.items()}
    crowds = {place: Crowd(limit, Overflow.CANCEL_OLDEST, coming=1) for place, limit in places.items()}
    await storage.between(overflow.count, crowds)
    return crowds


async def test_what_waits_is_counted_and_the_oldest_are_named(storage: Storage) -> None:
    keys = ["a", "b", "a", "", "a"]
    states = [State.QUEUED, State.SCHEDULED, State.RUNNING, State.QUEUED, State.RETRYING]
    tasks = [a_task(state, concurrency_key=key) for state, key in zip(states, keys, strict=True)]
    blocked, other = a_task(State.BLOCKED, concurrency_key="a"), a_task(queue="other")
    await write(storage, inserts=[*tasks[::-1], blocked, other])

    crowds = await count(storage, all=4, a=2, b=5, nobody=1)

    assert [crowd.waiting for crowd in crowds.values()] == [4, 2, 1, 0]
    assert [each[0] for each in crowds["mail", ""].oldest] == [tasks[number].id for number in (0, 1, 3, 4)]
    assert [*crowds["mail", "a"].oldest] == [(tasks[0].id, 0, "a"), (tasks[4].id, 0, "a")]
    assert not crowds["mail", "b"].oldest, "there is room: they are not read"


async def test_no_more_is_counted_than_matters(storage: Storage) -> None:
    await write(storage, inserts=[a_task() for _ in range(SPARE + 20)])
    crowd = (await count(storage, all=3))["mail", ""]
    assert crowd.waiting == crowd.limit + crowd.to_read + 1
    assert len(crowd.oldest) == crowd.to_read


@pytest.mark.parametrize("number", [3, COPY_FROM])
async def test_new_rows_end_with_their_commit_and_a_replay_changes_nothing(
    storage: Storage, database: str, number: int
) -> None:
    tasks = [a_task() for _ in range(number)]
    writes = {"inserts": tasks, "overflown": [(task.id, 0, "no room") for task in tasks[1:]]}
    first = await write(storage, **writes)
    rows = done(database)
    assert ([*live(database)], [*rows]) == ([tasks[0].id], [task.id for task in tasks[1:]])
    assert {(row["state"], row["error"]) for row in rows.values()} == {("cancelled", "no room")}

    again = await write_again(storage, **writes)

    assert (first.refused, again.refused) == ([], [])
    assert (len(live(database)), done(database)) == (1, rows)
