"""How often a worker says what its tasks note, and that nothing of it is lost. Without Ray: with a script."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from asyncproc.actors import noting as noting_module
from asyncproc.actors.conversation import Conversation
from asyncproc.actors.noting import Noting
from asyncproc.actors.slots import Slots
from asyncproc.core.events import FAILED, Lease, Note, Outcome
from asyncproc.core.task import NO_LIMITS
from asyncproc.executor import Executor
from asyncproc.notes import NOTE_EVERY_S, Notebook, NoteLimits
from asyncproc.registry import from_settings
from tests.deployed import settings_of
from tests.eventually import eventually_async

LOOPS = 100_000


def lease(number: int, task_type: str = "Note", **payload: object) -> Lease:
    return (number.to_bytes(16), 1, 1, task_type, "default", to_json(payload), 0.0, NO_LIMITS, False)


class Hand:
    """A clock and a conversation that move when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.sent = 0
        monkeypatch.setattr(noting_module, "monotonic", lambda: self.now)
        self.notebook = Notebook(NoteLimits())
        self.noting = Noting(self.notebook, asyncio.get_running_loop(), lambda key: True, self.send)

    def send(self) -> None:
        self.sent += 1


@pytest.fixture
async def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    return Hand(monkeypatch)


async def test_a_tight_loop_is_sent_once_a_second(hand: Hand) -> None:
    notes = hand.notebook.of(lease(1))
    for second in range(3):
        for done in range(LOOPS):
            notes.set_progress(done, LOOPS, None)
            if not done % 10_000:
                await asyncio.sleep(0)
                assert len(hand.noting.take()) == (done == 0)
        hand.now += NOTE_EVERY_S / 2
        assert hand.noting.take() == []
        hand.now += NOTE_EVERY_S / 2
        assert second == notes._number - 1
    assert len(hand.noting.take()) == 1


async def test_the_end_takes_what_is_left_whenever_it_comes(hand: Hand) -> None:
    notes = hand.notebook.of(lease(1))
    notes.set_checkpoint(1)
    await asyncio.sleep(0)
    hand.noting.confirmed(hand.noting.take())
    notes.set_checkpoint(2)
    last = hand.noting.last_of(notes.key)
    assert last is not None
    assert last[4] == b"2"
    assert hand.noting.last_of(lease(2)[:2]) is None
    hand.noting.close(notes.key)
    await asyncio.sleep(0)
    assert (hand.noting.take(), hand.noting.open) == ([], {})


class Handle:
    """In place of an actor, with answers at once: the first poll that brings notes is lost on the way."""

    def __init__(self, leases: list[Lease]) -> None:
        self.leases = leases
        self.notes: list[tuple[list[Outcome], list[Note]]] = []
        self.sessions = 0
        self.register, self.poll = _Method(self._register), _Method(self._poll)

    async def get(self) -> "Handle":
        return self

    def forget(self) -> None:
        pass

    async def _register(self, *_: object) -> tuple[int, int, list[bytes]]:
        self.sessions += 1
        return 1, self.sessions, []

    async def _poll(
        self, worker: str, session: int, outcomes: list[Outcome], returned: object, leaving: bool, notes: Any = ()
    ) -> tuple[int, list[Lease] | None, list[Any], list[Any]]:
        if notes:
            self.notes.append((outcomes, notes))
            if len(self.notes) == 1:
                raise TimeoutError
        if not (outcomes or notes or self.leases):
            await asyncio.Event().wait()
        granted, self.leases = self.leases, []
        return 1, granted, [], []


class _Method:
    def __init__(self, function: Any) -> None:
        self.remote = function


@pytest.fixture
async def talk(start_dir: Path) -> AsyncIterator[Any]:
    tasks: list[asyncio.Task[None]] = []

    def begin(*leases: Lease) -> Handle:
        handle: Any = Handle(list(leases))
        conversation = Conversation(handle, "default-1.x", "default", 1, poll_s=60.0)
        executor = Executor(from_settings(settings_of("", "n"), start_dir), "default-1.x", 1024, 1024, 4096, {})
        conversation.attend(executor.notebook)

        def ended(outcome: Outcome) -> None:
            conversation.ended(outcome, True)

        tasks.append(asyncio.create_task(conversation.run(Slots(executor, 1, ended, ended))))
        handle.notebook = executor.notebook
        return handle  # type: ignore[no-any-return]

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.parametrize("task_type", ["Resume", "ResumeAsync"])
async def test_what_was_lost_on_its_way_is_sent_again_with_the_end(talk: Any, task_type: str) -> None:
    handle = talk(lease(1, task_type, parts=2))

    async def ended() -> bool:
        return len(handle.notes) > 1 and bool(handle.notes[-1][0])

    await eventually_async(ended)
    (outcome,), (note,) = handle.notes[-1]
    assert (outcome[2], note[4]) == (FAILED, b'{"part":1}')
    assert note[2] > handle.notes[0][1][0][2]
    assert handle.sessions == 2

    async def forgotten() -> bool:
        return not handle.notebook.open

    await eventually_async(forgotten)


async def test_who_notes_nothing_says_nothing(talk: Any, tmp_path: Path) -> None:
    handle = talk(lease(1, ledger=str(tmp_path / "ledger"), n=1))
    await eventually_async(lambda: asyncio.to_thread((tmp_path / "ledger").exists))
    assert (handle.notes, handle.notebook.open) == ([], {})
