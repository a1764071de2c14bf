"""Keys under way, without a Ray and without a Postgres: both answer when they are told to."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from asyncproc.actors.answers import Cause, Refusal
from asyncproc.actors.once import Keyed, Once, Outcome
from asyncproc.core.retry import constant
from asyncproc.core.task import NO_TERMS, KeyUsed, NewTask, Options
from asyncproc.errors import StorageUnavailable, TasksRejected
from tests.eventually import eventually_async

OPTIONS = Options("Note", "default", 0, constant(1, 1.0), "")


def request(number: int, key: str = "k", body: bytes = b"body") -> Keyed:
    return Keyed(key, body, b'"answer %d"' % number, [(number.to_bytes(16), b"{}", OPTIONS, 0.0, NO_TERMS)])


@dataclass
class Table:
    """Commits wait until `go` is set, and look-ups until `found` is."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    found: asyncio.Event = field(default_factory=asyncio.Event)
    keys: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    failure: Exception | None = None

    async def answers(self, asked: Sequence[tuple[str, bytes]]) -> dict[str, bytes | None]:
        await self.found.wait()
        rows = {key: (body, self.keys[key]) for key, body in asked if key in self.keys}
        return {key: answer if body == used else None for key, (body, (used, answer)) in rows.items()}

    async def commit(self, tasks: list[NewTask], keys: list[KeyUsed], sizes: Sequence[int]) -> None:
        self.commits.append([used[0] for used in keys])
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        self.keys.update({key: (body, answer) for key, body, answer, _, _ in keys})


@pytest.fixture
def table() -> Table:
    table = Table()
    table.found.set()
    return table


@pytest.fixture
def once(table: Table) -> Once:
    async def unique(requests: list[Keyed]) -> list[Outcome]:
        return [b'"another stands for it"'] * len(requests)

    return Once(table.answers, lambda _: None, table.commit, unique, 60.0)


async def calling(table: Table, once: Once, *requests: Keyed) -> "asyncio.Task[list[Outcome]]":
    """A call that has come to its commit."""
    call = asyncio.create_task(once.enqueue(requests))

    async def has_come() -> bool:
        return bool(table.commits)

    await eventually_async(has_come)
    return call


async def test_while_the_first_is_under_way_others_wait_for_its_answer(table: Table, once: Once) -> None:
    first = await calling(table, once, request(1))
    second = asyncio.create_task(once.enqueue([request(2)]))
    await asyncio.sleep(0)
    assert not second.done()

    table.go.set()

    assert await first == [None]
    assert await second == [b'"answer 1"']
    assert table.commits == [["k"]]


async def test_two_that_come_before_either_was_looked_up_are_one(table: Table, once: Once) -> None:
    table.found.clear()
    calls = [asyncio.create_task(once.enqueue([request(number)])) for number in (1, 2)]
    await asyncio.sleep(0)
    table.found.set()
    table.go.set()

    assert [await call for call in calls] == [[None], [b'"answer 1"']]
    assert table.commits == [["k"]]


async def test_one_call_may_carry_a_key_twice(table: Table, once: Once) -> None:
    table.go.set()

    assert await once.enqueue([request(1), request(2), request(3, "other")]) == [None, b'"answer 1"', None]
    assert table.commits == [["k", "other"]]


async def test_what_the_table_knows_is_answered_and_the_rest_of_the_call_is_committed(table: Table, once: Once) -> None:
    table.go.set()
    await once.enqueue([request(1)])

    outcomes = await once.enqueue([request(2), request(3, "k2"), request(4, "k3")])

    assert outcomes == [b'"answer 1"', None, None]
    assert table.commits == [["k"], ["k2", "k3"]]


async def test_another_body_is_refused_while_the_first_is_under_way_and_after_it(table: Table, once: Once) -> None:
    first = await calling(table, once, request(1))

    (during,) = await once.enqueue([request(2, body=b"other")])
    table.go.set()
    await first
    (after,) = await once.enqueue([request(2, body=b"other")])

    for refusal in (during, after):
        assert isinstance(refusal, Refusal)
        assert refusal.cause is Cause.KEY


async def test_a_caller_that_goes_away_ends_nothing(table: Table, once: Once) -> None:
    first = await calling(table, once, request(1))
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(once.enqueue([request(2)]))
    await asyncio.sleep(0)

    table.go.set()

    assert await second == [b'"answer 1"']
    assert table.commits == [["k"]]


@pytest.mark.parametrize("failure", [StorageUnavailable("gone"), OSError("anything else")], ids=repr)
async def test_after_a_failure_all_who_wait_are_told_and_the_key_is_free(
    table: Table, once: Once, failure: Exception
) -> None:
    table.failure = failure
    calls = [await calling(table, once, request(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    table.go.set()
    told = await asyncio.gather(*calls, return_exceptions=True)

    table.failure = None
    again = await once.enqueue([request(3)])

    assert told == (
        [[Refusal(Cause.STORAGE, "gone")]] * 2 if isinstance(failure, StorageUnavailable) else [failure] * 2
    )
    assert again == [None]


async def test_a_task_that_postgres_refuses_fails_its_own_request(table: Table, once: Once) -> None:
    table.failure = TasksRejected({(1).to_bytes(16): "not JSON"})
    table.go.set()

    bad, good = await once.enqueue([request(1), request(2, "other")])

    assert isinstance(bad, Refusal)
    assert bad.cause is Cause.TASK
    assert good is None
