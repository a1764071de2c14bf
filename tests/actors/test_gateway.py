"""The gateway alone: a QueueActor that answers when it is told to, without a Ray."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from asyncproc.actors.gateway import Gateway
from asyncproc.actors.lane import CALLS_AT_ONCE
from asyncproc.core.retry import constant
from asyncproc.core.task import NewTask, Options
from asyncproc.errors import QueueUnavailable
from tests.eventually import eventually_async

OPTIONS = Options("Note", "default", 0, constant(1, 1.0), "")


@dataclass
class Actor:
    """Stands for the Ray handle; every call waits until `answer` is set."""

    answer: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[int] = field(default_factory=list)

    @property
    def enqueue(self) -> "Actor":
        return self

    async def remote(self, tasks: list[NewTask], again: bool) -> None:
        self.calls.append(len(tasks))
        await self.answer.wait()


@dataclass
class Handle:
    actor: Actor

    async def get(self) -> Actor:
        return self.actor


def gateway(actor: Actor, timeout_s: float = 30.0) -> Gateway:
    handle: Any = Handle(actor)
    return Gateway(handle, timeout_s)


def a_task() -> list[NewTask]:
    return [(b"0" * 16, b"{}", OPTIONS, 0.0)]


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
