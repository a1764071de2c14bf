"""The gateway alone: a QueueActor that answers when it is told to, without a Ray."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from asyncproc.actors import lane
from asyncproc.actors.answers import Health, Refusal
from asyncproc.actors.calls import MAX_UNANSWERED
from asyncproc.actors.gateway import Gateway
from asyncproc.actors.lane import CALLS_AT_ONCE
from asyncproc.core.retry import constant
from asyncproc.core.task import NO_TERMS, NewTask, Options
from asyncproc.errors import QueueDraining, QueueUnavailable
from tests.eventually import eventually_async

OPTIONS = Options("Note", "default", 0, constant(1, 1.0), "")


@dataclass
class Actor:
    """Stands for the Ray handle; every call waits until `answer` is set."""

    answer: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    @property
    def enqueue(self) -> "Actor":
        return self

    async def remote(self, tasks: list[NewTask], again: bool, sizes: Sequence[int]) -> None:
        self.calls.append(len(tasks))
        await self.answer.wait()
        self.ended.append(len(tasks))

    @property
    def health(self) -> "HealthOf":
        return HealthOf()


class HealthOf:
    async def remote(self) -> Health:
        return Health(True, "ok", 1, 7)


@dataclass
class Handle:
    actor: Actor

    async def get(self) -> Actor:
        return self.actor


def gateway(actor: Actor, timeout_s: float = 30.0) -> Gateway:
    handle: Any = Handle(actor)
    return Gateway(handle, timeout_s)


def a_task() -> list[NewTask]:
    return [(b"0" * 16, b"{}", OPTIONS, 0.0, NO_TERMS)]


async def test_requests_that_come_together_share_a_call() -> None:
    actor = Actor()
    door = gateway(actor)
    actor.answer.set()

    await asyncio.gather(*(door.enqueue(a_task()) for _ in range(50)))

    assert actor.calls == [50]


async def test_a_request_made_in_the_moment_in_which_all_calls_end_is_sent() -> None:
    actor = Actor()
    door = gateway(actor)

    async def client(requests: int) -> None:
        for _ in range(requests):
            await door.enqueue(a_task())

    clients: list[asyncio.Task[None]] = []

    async def all_have_called() -> bool:
        return len(actor.calls) == len(clients)

    for requests in (2, *[1] * (CALLS_AT_ONCE - 1)):
        clients.append(asyncio.create_task(client(requests)))
        await eventually_async(all_have_called)
    actor.answer.set()

    async with asyncio.timeout(10):
        await asyncio.gather(*clients)
    assert len(actor.calls) == CALLS_AT_ONCE + 1


async def test_a_request_that_is_never_answered_ends_with_an_error_that_says_so() -> None:
    door = gateway(Actor(), timeout_s=0.05)

    answers = await asyncio.gather(*(door.enqueue(a_task()) for _ in range(5)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {QueueUnavailable}


async def test_how_long_requests_wait_to_be_sent_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(lane, "monotonic", lambda: now)
    actor = Actor()
    door = gateway(actor)
    sent = [asyncio.create_task(door.enqueue(a_task()))]
    await eventually_async(lambda: _has_called(actor, 1))
    sent += [asyncio.create_task(door.enqueue(a_task())) for _ in range(CALLS_AT_ONCE - 1)]
    await eventually_async(lambda: _has_called(actor, CALLS_AT_ONCE))
    now = 1.0
    assert door.waited_s() == 0.0  # they are on their way
    sent.append(asyncio.create_task(door.enqueue(a_task())))
    await asyncio.sleep(0)
    now = 3.0
    sent.append(asyncio.create_task(door.enqueue(a_task())))
    await asyncio.sleep(0)
    now = 4.0
    assert door.waited_s() == 3.0
    actor.answer.set()
    await asyncio.gather(*sent)
    assert door.waited_s() == 0.0


async def _has_called(actor: Actor, times: int) -> bool:
    return len(actor.calls) == times


async def test_calls_that_nobody_answers_are_bounded_and_come_back_when_they_are_answered() -> None:
    actor = Actor()
    door = gateway(actor, timeout_s=0.01)
    causes: list[str] = []
    while "unanswered" not in (causes or [""])[-1]:
        with pytest.raises(QueueUnavailable) as refusal:
            await door.enqueue(a_task())
        causes.append(refusal.value.cause)
        assert len(actor.calls) <= MAX_UNANSWERED

    actor.answer.set()

    async def is_served() -> bool:
        try:
            await door.enqueue(a_task())
        except QueueUnavailable:
            return False
        return True

    await eventually_async(is_served)


async def test_calls_of_one_kind_leave_room_for_those_of_another() -> None:
    actor = Actor()
    door = gateway(actor, timeout_s=0.01)
    for _ in range(MAX_UNANSWERED + 1):
        with pytest.raises(QueueUnavailable):
            await door.enqueue(a_task())

    assert (await door.health(5.0)).epoch == 7


async def test_a_request_that_is_given_up_while_it_waits_is_neither_held_nor_sent() -> None:
    actor = Actor()
    door = gateway(actor)
    requests = [asyncio.create_task(door.enqueue(a_task())) for _ in range(CALLS_AT_ONCE)]

    async def all_are_on_their_way() -> bool:
        return len(actor.calls) == 1 and not len(door._plain)

    await eventually_async(all_are_on_their_way)
    requests += [asyncio.create_task(door.enqueue(a_task())) for _ in range(10)]
    await asyncio.sleep(0)
    for request in requests[-5:]:
        request.cancel()
    await asyncio.wait(requests[-5:])
    assert len(door._plain) <= 5

    actor.answer.set()
    await asyncio.gather(*requests[:-5])
    assert sum(actor.calls) == len(requests) - 5


async def test_a_caller_that_goes_away_does_not_take_back_what_was_sent() -> None:
    actor = Actor()
    door = gateway(actor)
    first = asyncio.create_task(door.enqueue(a_task()))

    async def is_on_its_way() -> bool:
        return actor.calls == [1]

    await eventually_async(is_on_its_way)
    first.cancel()
    await asyncio.wait([first])
    actor.answer.set()

    await door.enqueue(a_task())
    assert actor.ended == [1, 1]


@dataclass
class Drained(Actor):
    """Takes nothing into one queue, and nothing that comes with it."""

    async def remote(self, tasks: list[NewTask], again: bool, sizes: Sequence[int]) -> Refusal | None:  # type: ignore[override]
        self.calls.append(len(tasks))
        shut_out = tuple(task[0] for task in tasks if task[2].queue == "mail")
        return Refusal.of(QueueDraining(("mail",), shut_out)) if shut_out else None


async def test_who_wants_a_drained_queue_is_refused_and_who_came_along_is_not() -> None:
    actor = Drained()
    door = gateway(actor)
    options = OPTIONS._replace(queue="mail")
    mail: list[NewTask] = [(b"1" * 16, b"{}", options, 0.0, NO_TERMS)]

    requests = (a_task(), mail, [*a_task(), *mail], a_task())
    answers = await asyncio.gather(*(door.enqueue(request) for request in requests), return_exceptions=True)

    assert [type(answer) for answer in answers] == [type(None), QueueDraining, QueueDraining, type(None)]
    assert actor.calls == [5, 2], "the call is refused as a whole, and what is left of it sent again"
