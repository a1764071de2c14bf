"""A worker's side of the protocol, against a QueueActor that says what a test tells it to."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from pydantic_core import to_json

from asyncproc.actors.conversation import Conversation
from asyncproc.actors.deployment import QUEUE_NAME, QueueHandle
from asyncproc.actors.slots import Slots
from asyncproc.core.events import Lease, Outcome
from asyncproc.core.task import NO_LIMITS, TaskId
from asyncproc.executor import Executor
from asyncproc.registry import from_settings
from tests.deployed import Ledger, settings_of
from tests.eventually import eventually_async


def named(n: int) -> TaskId:
    return n.to_bytes(16)


class Broken(Exception):
    """What a scripted answer may be."""


class Script:
    """Answers each call with what was put there for it; a poll without an answer stays open."""

    def __init__(self) -> None:
        self.registered: list[list[tuple[bytes, int]]] = []
        self.polled: list[tuple[int, list[Any]]] = []
        self.returned: list[tuple[bytes, int]] = []
        # By session: a poll of an earlier one is still open here when the worker has long given it up.
        self._answers: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    async def register(
        self, worker: str, pool: str, concurrency: int, held: list[tuple[bytes, int]], seen_epoch: int, *more: Any
    ) -> Any:
        self.registered.append(held)
        return await self._answers["register"].get()

    async def poll(
        self,
        worker: str,
        session: int,
        outcomes: list[Any],
        returned: list[tuple[bytes, int]],
        leaving: bool,
        *notes: Any,
    ) -> Any:
        self.polled.append((session, outcomes))
        self.returned += returned
        answer = await self._answers[f"{'report' if outcomes else 'poll'} {session}"].get()
        if answer == "broken":
            raise Broken
        # Most scripts neither call back nor stop anything.
        return (*answer, [], [])[:4]

    async def say(self, to: str, answer: Any) -> None:
        await self._answers[to].put(answer)

    async def heard(self) -> tuple[list[Any], list[Any]]:
        return self.registered, self.polled

    async def given_back(self) -> list[tuple[bytes, int]]:
        return self.returned


class Worker(NamedTuple):
    script: Any
    conversation: Conversation
    slots: Slots
    ledger: Ledger

    async def say(self, to: str, answer: Any) -> None:
        await self.script.say.remote(to, answer)

    async def registrations(self, number: int) -> list[list[tuple[bytes, int]]]:
        """What it said it holds, once it has registered so often."""

        async def enough() -> list[list[tuple[bytes, int]]] | None:
            registered, _ = await self.script.heard.remote()
            return registered if len(registered) >= number else None

        return await eventually_async(enough)

    async def reports(self, number: int) -> list[list[tuple[bytes, int]]]:
        """Ids and leases of the outcomes it reported, once there are so many reports."""

        async def enough() -> list[list[tuple[bytes, int]]] | None:
            _, polled = await self.script.heard.remote()
            reports = [[(outcome[0], outcome[1]) for outcome in outcomes] for _, outcomes in polled if outcomes]
            return reports if len(reports) >= number else None

        return await eventually_async(enough)

    async def given_back(self, number: int) -> list[tuple[bytes, int]]:
        """Ids and leases of what it returned, once that is so many."""

        async def enough() -> list[tuple[bytes, int]] | None:
            returned: list[tuple[bytes, int]] = await self.script.given_back.remote()
            return returned if len(returned) >= number else None

        return await eventually_async(enough)

    async def asks(self, session: int) -> bool:
        """Once it has polled without anything to report: it goes by this registration."""

        async def asks() -> bool:
            _, polled = await self.script.heard.remote()
            return (session, []) in polled

        return await eventually_async(asks)

    async def began(self, number: int) -> list[int]:
        async def enough() -> list[int] | None:
            return order if len(order := self.ledger.order()) >= number else None

        return await eventually_async(enough)

    def note(self, n: int, lease: int = 1) -> Lease:
        return (
            named(n),
            lease,
            1,
            "Note",
            "default",
            to_json({"ledger": self.ledger.path, "n": n}),
            0.0,
            NO_LIMITS,
            False,
        )

    def hold(self, n: int, gate: Path) -> Lease:
        body = {"ledger": self.ledger.path, "n": n, "gate": str(gate)}
        return (named(n), 1, 1, "Hold", "default", to_json(body), 0.0, NO_LIMITS, False)


@pytest.fixture
async def worker(ray_cluster: None, namespace: str, start_dir: Path, tmp_path: Path) -> AsyncIterator[Worker]:
    """One slot, in conversation with a script."""
    script = ray.remote(Script).options(name=QUEUE_NAME, namespace=namespace, num_cpus=0).remote()
    registry = from_settings(settings_of("", namespace), start_dir)
    conversation = Conversation(QueueHandle(namespace), "default-1.x", "default", 1, poll_s=60.0)
    executor = Executor(registry, "default-1.x", 1024, 1024, 4096, {})

    def ended(outcome: Outcome) -> None:
        conversation.ended(outcome, slots.is_idle())

    slots = Slots(executor, 1, ended, ended)
    async with _talking(conversation, slots):
        yield Worker(script, conversation, slots, Ledger(tmp_path / "ledger"))


@asynccontextmanager
async def _talking(conversation: Conversation, slots: Slots) -> AsyncIterator[None]:
    talk = asyncio.create_task(conversation.run(slots))
    yield
    talk.cancel()
    await asyncio.wait([talk])


async def test_a_result_is_held_until_it_is_said_to_be_recorded(worker: Worker) -> None:
    await worker.say("register", (1, 1, []))
    await worker.say("poll 1", (1, [worker.note(7)]))
    await worker.reports(1)

    await worker.say("report 1", "broken")
    registrations = await worker.registrations(2)
    await worker.say("register", (1, 2, []))
    reports = await worker.reports(2)
    await worker.say("report 2", (1, []))
    await worker.say("poll 2", (1, None))
    after = await worker.registrations(3)

    assert registrations == [[], [(named(7), 1)]]
    assert reports == [[(named(7), 1)]] * 2
    assert after[2] == []
    assert worker.ledger.order() == [7]


async def test_a_dropped_lease_that_has_not_begun_never_begins(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await worker.say("register", (1, 1, []))
    await worker.say("poll 1", (1, [worker.hold(1, gate), worker.note(2), worker.note(3)]))
    await worker.began(1)

    await worker.say("poll 1", (1, None))
    registrations = await worker.registrations(2)
    await worker.say("register", (1, 2, [named(2)]))
    await worker.say("poll 2", (1, [worker.note(4)]))
    gate.touch()

    assert registrations[1] == [(named(1), 1), (named(2), 1), (named(3), 1)]
    assert await worker.began(3) == [1, 3, 4]


async def test_the_result_of_a_lease_that_was_dropped_while_it_ran_is_not_reported(
    worker: Worker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await worker.say("register", (1, 1, []))
    await worker.say("poll 1", (1, [worker.hold(1, gate)]))
    await worker.began(1)

    await worker.say("poll 1", (1, None))
    await worker.registrations(2)
    await worker.say("register", (1, 2, [named(1)]))
    await worker.say("poll 2", (1, [worker.note(2)]))
    gate.touch()

    assert await worker.reports(1) == [[(named(2), 1)]]


async def test_an_epoch_lower_than_the_highest_seen_is_not_obeyed(worker: Worker) -> None:
    await worker.say("register", (5, 1, []))
    await worker.say("poll 1", (4, [worker.note(1)]))
    await worker.registrations(2)
    await worker.say("register", (4, 2, []))
    await worker.registrations(3)
    await worker.say("register", (6, 3, []))
    await worker.say("poll 3", (6, [worker.note(2)]))

    assert await worker.reports(1) == [[(named(2), 1)]]
    assert worker.ledger.order() == [2]


async def test_a_drain_hands_back_what_has_not_begun_and_waits_for_the_rest(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await worker.say("register", (1, 1, []))
    await worker.say("poll 1", (1, [worker.hold(1, gate), worker.note(2)]))
    await worker.began(1)

    drain = asyncio.create_task(worker.conversation.drain(worker.slots, 60.0))
    registrations = await worker.registrations(2)
    await worker.say("register", (1, 2, []))
    assert await worker.asks(session=2)
    gate.touch()
    reports = await worker.reports(1)
    assert not drain.done()
    await worker.say("report 2", (1, []))

    assert await drain == 0
    assert registrations[1] == [(named(1), 1)]
    assert reports == [[(named(1), 1)]]
    assert worker.ledger.order() == [1]


async def test_what_was_on_its_way_to_a_worker_that_leaves_never_begins(worker: Worker) -> None:
    await worker.say("register", (1, 1, []))
    assert await worker.asks(session=1)

    worker.conversation.leave(worker.slots)
    await worker.say("poll 1", (1, [worker.note(1)]))
    registrations = await worker.registrations(2)
    await worker.say("register", (1, 2, []))
    await worker.say("poll 2", (1, []))
    await worker.conversation.gone(all_ended=True)

    assert registrations[1] == []
    assert worker.ledger.order() == []


async def test_a_drain_says_how_many_tasks_outlast_its_grace(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await worker.say("register", (1, 1, []))
    await worker.say("poll 1", (1, [worker.hold(1, gate)]))
    await worker.began(1)

    assert await worker.conversation.drain(worker.slots, 0.0) == 1
    await worker.say("register", (1, 2, []))
    gate.touch()
    assert await worker.reports(1) == [[(named(1), 1)]]


async def test_what_is_called_back_is_returned_unless_it_has_begun(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await worker.say("register", (1, 1, []))
    await worker.say("poll 1", (1, [worker.hold(1, gate), *(worker.note(n) for n in (2, 3, 4, 5))]))
    await worker.began(1)

    recalled = [(named(1), 1), (named(2), 1), (named(3), 7), (named(4), 1), (named(9), 1)]
    await worker.say("poll 1", (1, [], recalled))
    returned = await worker.given_back(2)
    gate.touch()

    assert returned == [(named(2), 1), (named(4), 1)]
    assert await worker.began(3) == [1, 3, 5]


async def test_what_was_returned_is_not_held_though_the_report_of_it_is_lost(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await worker.say("register", (1, 1, []))
    await worker.say("poll 1", (1, [worker.hold(1, gate), worker.note(2), worker.note(3)]))
    await worker.began(1)

    await worker.say("poll 1", (1, [], [(named(2), 1)]))
    await worker.given_back(1)
    await worker.say("poll 1", "broken")
    await worker.say("poll 1", "broken")
    registrations = await worker.registrations(2)
    await worker.say("register", (1, 2, []))
    await worker.say("poll 2", (1, [worker.note(2, lease=2)]))
    gate.touch()

    assert registrations[1] == [(named(1), 1), (named(3), 1)]
    assert await worker.began(3) == [1, 3, 2]
    assert await worker.given_back(1) == [(named(2), 1)]
