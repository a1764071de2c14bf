"""What one replica takes in hand, by number and bytes, without a Ray."""

import asyncio
from contextlib import ExitStack

import pytest

from asyncproc.api.admission import Admission, Room
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
    admission = Admission(ApiSettings.model_validate({"maxEnqueues": 1}))
    with admission.enqueues.hold(), admission.reads.hold(), admission.retries.hold(), admission.health.hold():
        pass
