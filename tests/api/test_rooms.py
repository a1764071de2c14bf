"""What one replica takes in hand, by number and bytes, without a Ray."""

import asyncio
from contextlib import ExitStack

import pytest

from asyncproc.api import admission
from asyncproc.api.admission import TURN_S, Admission, Room, Turns
from asyncproc.config import ApiSettings
from asyncproc.errors import TooManyRequests


def a_room(most: int = 10, most_bytes: int = 0) -> Room:
    return Room("to enqueue", most, "api.maxEnqueues", most_bytes)


def test_past_its_number_a_request_is_refused_until_another_has_ended() -> None:
    room = a_room(most=2)
    with ExitStack() as stack:
        stack.enter_context(room.hold())
        with room.hold(), pytest.raises(TooManyRequests) as refusal, room.hold():
            pass
        with room.hold():
            pass
    assert "2 requests to enqueue" in str(refusal.value)
    assert "api.maxEnqueues" in str(refusal.value)
    assert room.requests == 0


def test_past_its_bytes_a_request_is_refused() -> None:
    room = a_room(most_bytes=100)
    with room.hold(60):
        with pytest.raises(TooManyRequests), room.hold(41):
            pass
        with room.hold(40):
            assert room.bytes == 100
    assert (room.requests, room.bytes) == (0, 0)


def test_a_request_that_is_alone_is_taken_however_large() -> None:
    room = a_room(most_bytes=100)
    with room.hold(1_000):
        assert room.bytes == 1_000
    with room.hold() as held:
        held.has(1_000)
    assert room.bytes == 0


def test_bytes_that_nobody_declared_count_as_they_come() -> None:
    room = a_room(most_bytes=100)
    with room.hold() as one, room.hold(50):
        one.has(30)
        one.has(50)
        one.has(40)
        assert room.bytes == 100
        with pytest.raises(TooManyRequests):
            one.has(51)
    assert (room.requests, room.bytes) == (0, 0)


async def test_a_request_that_is_cancelled_leaves_nothing_behind() -> None:
    room = a_room(most_bytes=100)

    async def handler() -> None:
        with room.hold(10):
            await asyncio.Event().wait()

    call = asyncio.create_task(handler())
    await asyncio.sleep(0)
    assert (room.requests, room.bytes) == (1, 10)
    call.cancel()
    await asyncio.wait([call])

    assert (room.requests, room.bytes) == (0, 0)


def test_each_kind_has_room_of_its_own() -> None:
    rooms = Admission(ApiSettings.model_validate({"maxEnqueues": 1}))
    with rooms.enqueues.hold(), rooms.reads.hold(), rooms.retries.hold(), rooms.health.hold():
        pass


class Work:
    """Requests that come at once, each of which takes `takes_s` of a clock of its own. `seen` is the order in which
    they were worked on, among them as -1 somebody who came while the first of them was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes_s: float) -> None:
        self.turns = Turns()
        self.seen: list[int] = []
        self._now, self._takes_s = 0.0, takes_s
        self._newcomer: asyncio.Task[None] | None = None
        monkeypatch.setattr(admission, "monotonic", lambda: self._now)

    async def do(self, n: int) -> None:
        async with self.turns:
            if self._newcomer is None:
                self._newcomer = asyncio.create_task(self._look())
            self.seen.append(n)
            self._now += self._takes_s

    async def _look(self) -> None:
        self.seen.append(-1)


async def test_whoever_comes_while_many_are_worked_on_does_not_wait_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work(monkeypatch, TURN_S)
    await asyncio.gather(*(work.do(n) for n in range(50)))
    assert work.seen == [0, -1, *range(1, 50)]


async def test_what_is_small_together_is_done_in_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch, TURN_S / 100)
    await asyncio.gather(*(work.do(n) for n in range(50)))
    assert work.seen == [*range(50), -1]


@pytest.mark.parametrize("turns_before", [1, 2], ids=["while it waits", "when it is to begin"])
async def test_the_turn_of_one_that_is_cancelled_is_another_s(
    monkeypatch: pytest.MonkeyPatch, turns_before: int
) -> None:
    work = Work(monkeypatch, TURN_S)
    calls = [asyncio.create_task(work.do(n)) for n in range(4)]
    for _ in range(turns_before):
        await asyncio.sleep(0)
    calls[1].cancel()
    async with asyncio.timeout(10):
        await asyncio.wait(calls)
    assert [call.cancelled() for call in calls] == [False, True, False, False]
    assert [n for n in work.seen if n >= 0] == [0, 2, 3]


async def test_one_that_stops_in_the_middle_of_its_work_is_alone_with_it() -> None:
    turns = Turns()
    seen: list[int] = []

    async def do(n: int) -> None:
        async with turns:
            seen.append(n)
            await asyncio.sleep(0)
            seen.append(n)

    await asyncio.gather(*(do(n) for n in range(2)))
    assert seen == [0, 0, 1, 1]
