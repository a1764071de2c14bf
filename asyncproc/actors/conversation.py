"""A worker's side of the protocol: register, ask for leases, report outcomes, hold each until it is recorded."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ray.exceptions import ActorDiedError, RayError

from asyncproc import failpoints
from asyncproc.actors.deployment import QueueHandle
from asyncproc.actors.noting import Noting
from asyncproc.actors.slots import Slots
from asyncproc.clock import spread
from asyncproc.core.batches import Batching
from asyncproc.core.events import Lease, Note, Outcome, note_bytes, outcome_bytes
from asyncproc.core.task import TaskId
from asyncproc.notes import Notebook, NoteLimits

log = logging.getLogger(__name__)

FLUSH_S: Final = 0.005
"""How long a finished task waits for company while others follow it."""
FULL: Final = 500
MAX_REPORT_BYTES: Final = 8 * 1024 * 1024
_MARGIN_S: Final = 10.0
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0


class _MustRegister(Exception):
    """The QueueActor does not know this session, or is not the one that reigns."""


@dataclass(slots=True)
class _Held:
    lease: int
    outcome: Outcome | None = None


class Conversation:
    """One worker's exchanges with the QueueActor: at most two at a time, so that it works while a cycle commits."""

    def __init__(
        self, queue: QueueHandle, worker: str, pool: str, concurrency: int, poll_s: float, longest_poll_s: float = 0.0
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._pool = pool
        self._concurrency = concurrency
        self._deadline_s = poll_s + _MARGIN_S
        self._idle_deadline_s = max(poll_s, longest_poll_s) + _MARGIN_S
        """For the answer to a poll while nothing runs here: the QueueActor may take that long over it."""
        self._held: dict[TaskId, _Held] = {}
        self._ended: deque[Outcome] = deque()
        self._returned: list[tuple[TaskId, int]] = []
        self.types: tuple[str, ...] | None = None
        """The task types that run here, said at each registration."""
        self._epoch = 0
        self._draining = False
        self._leaving = False
        self._told_leaving = False
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._report = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = False
        self._talk: asyncio.Task[None] | None = None
        self.batching: Mapping[str, Batching] = {}
        """Types of which the slots take several tasks in one call."""
        self.vouch: Callable[[Any], list[Any]] | None = None
        """Of one that nobody there started: what proves that it lives, given the QueueActor."""
        self.attend(Notebook(NoteLimits()))

    def attend(self, notebook: Notebook) -> None:
        """Report what the tasks note here."""
        self._noting = Noting(notebook, self._loop, lambda key: self._has(*key), self._report.set)

    async def run(self, slots: Slots) -> None:
        """Talk until the process ends; whatever goes wrong between the two is answered by registering anew."""
        wait_s = _FIRST_RETRY_S
        while True:
            try:
                session = await self._register(slots)
                wait_s = _FIRST_RETRY_S
                self._talk = asyncio.ensure_future(self._exchange(session, slots))
                await self._talk
            except asyncio.CancelledError:
                # A drain cancels the exchange alone; whoever cancels this task means all of it.
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
            except ActorDiedError:
                self._queue.forget()
            except (_MustRegister, RayError, TimeoutError, ValueError) as error:
                log.info("%s registers again: %s", self._worker, type(error).__name__)
            await asyncio.sleep(wait_s * (1 + 0.5 * spread()))
            wait_s = min(2 * wait_s, _LAST_RETRY_S)

    def ended(self, outcome: Outcome, idle: bool) -> None:
        """Called by the slots' threads. Wakes the loop only where there is something to decide."""
        self._ended.append(outcome)
        if idle or not self._armed or len(self._ended) >= FULL:
            self._armed = True
            self._loop.call_soon_threadsafe(self._consider_report, idle)

    async def drain(self, slots: Slots, grace_s: float) -> int:
        """Take nothing more, hand back what no slot began, wait for the rest; returns how many still run then."""
        self._draining = True
        if self._talk is not None:
            self._talk.cancel()
        for lease in slots.take_back():
            self._held.pop(lease[0], None)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._until(lambda: not self._held)
        return len(self._held)

    def leave(self, slots: Slots) -> None:
        """Take nothing more and say so, hand back what no slot began; what runs goes on, and is reported as ever."""
        self._leaving = True
        for lease in slots.take_back():
            self._hand_back(lease)
        self._report.set()

    async def gone(self, *, all_ended: bool) -> None:
        """After `leave`: returns once it is known there and all that ended is recorded, or all that was held has ended.

        Give it a deadline: while the QueueActor is away nothing is recorded.
        """
        await self._until(lambda: not self._owes(all_ended))

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Looks again after each exchange."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # ---- the exchanges

    async def _register(self, slots: Slots) -> int:
        held = [(task_id, entry.lease) for task_id, entry in self._held.items()]
        # A QueueActor of the release before, which may still reign, knows of no batches.
        more: tuple[object, ...] = (self.batching,) if self.batching else ()
        actor = await self._queue.get()
        if self.vouch is not None:
            more = (self.batching, self.vouch(actor))
        failpoints.hit("worker.before_register")
        epoch, session, dropped = await self._answer(
            actor.register.remote(self._worker, self._pool, self._concurrency, held, self._epoch, self.types, *more),
            self._deadline_s,
        )
        failpoints.hit("worker.after_register")
        self._check(epoch)
        for task_id in dropped:
            if (entry := self._held.pop(task_id, None)) is not None:
                self._noting.close((task_id, entry.lease))
        if dropped:
            self._put_back(slots)
        self._resend()
        self._changed.set()
        return int(session)

    def _put_back(self, slots: Slots) -> None:
        """What was dropped and has not begun must not begin: somebody else may be running it."""
        slots.put([lease for lease in slots.take_back() if self._has(lease[0], lease[1])])

    def _resend(self) -> None:
        self._collect()
        self._ended.extendleft(entry.outcome for entry in reversed(self._held.values()) if entry.outcome is not None)
        if self._ended:
            self._report.set()
        self._noting.send_again()

    async def _exchange(self, session: int, slots: Slots) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._report_ends(session, slots))
                group.create_task(self._listen(session, slots))
        except* (_MustRegister, RayError, TimeoutError) as errors:
            raise errors.exceptions[0] from None

    async def _listen(self, session: int, slots: Slots) -> None:
        """One that drains or leaves asks once: only a poll proves that it goes by its registration, and hands back the
        rest."""
        listens = True
        while listens:
            await self._poll(session, slots, *self._take_report(), self._take_returned())
            listens = not (self._draining or self._leaving)

    async def _report_ends(self, session: int, slots: Slots) -> None:
        while True:
            await self._report.wait()
            self._report.clear()
            (outcomes, notes), returned = self._take_report(), self._take_returned()
            if outcomes or notes or returned or self._leaving:
                await self._poll(session, slots, outcomes, notes, returned)

    async def _poll(
        self,
        session: int,
        slots: Slots,
        outcomes: list[Outcome],
        notes: list[Note],
        returned: list[tuple[TaskId, int]],
    ) -> None:
        actor = await self._queue.get()
        leaving = self._leaving
        failpoints.hit("worker.before_send")
        # A QueueActor of the release before, which may still reign, knows of no notes.
        told = (outcomes, returned, leaving, notes) if notes else (outcomes, returned, leaving)
        waits = not (outcomes or notes or returned or leaving) and self._runs_nothing()
        epoch, leases, recalled, stops = await self._answer(
            actor.poll.remote(self._worker, session, *told), self._idle_deadline_s if waits else self._deadline_s
        )
        failpoints.hit("worker.after_receive")
        self._check(epoch)
        if leases is None:
            raise _MustRegister
        self._noting.confirmed(notes)
        for outcome in outcomes:
            self._recorded(outcome)
        self._told_leaving = self._told_leaving or leaving
        failpoints.hit("worker.after_recorded")
        self._changed.set()
        if leases and (self._draining or self._leaving):
            # Not ours any more: the next registration does not name them, which hands them back.
            raise _MustRegister
        self._grant(leases, slots)
        if recalled:
            self._return(recalled, slots)
        if stops:
            self._stop(stops, slots)

    async def _answer(self, reference: Any, deadline_s: float) -> Any:
        async with asyncio.timeout(deadline_s):
            return await reference

    def _runs_nothing(self) -> bool:
        """What has ended may be recorded by now, though nobody said so yet."""
        return all(entry.outcome is not None for entry in self._held.values())

    def _check(self, epoch: int) -> None:
        if epoch < self._epoch:
            self._queue.forget()
            raise _MustRegister
        self._epoch = epoch

    # ---- what is held

    def _grant(self, leases: list[Lease], slots: Slots) -> None:
        for lease in leases:
            self._held[lease[0]] = _Held(lease[1])
        slots.put(leases)

    def _return(self, recalled: list[tuple[TaskId, int]], slots: Slots, *, gathering: bool = False) -> None:
        """Let go of those that no slot has begun. Should the report of it be lost, the registration that follows does
        not name them, which says the same."""
        ours = {task_id for task_id, number in recalled if self._has(task_id, number)}
        for lease in slots.take_back(ours, gathering=gathering):
            self._hand_back(lease)
        if self._returned:
            self._report.set()

    def _stop(self, stops: list[tuple[TaskId, int, float]], slots: Slots) -> None:
        """What no slot has begun is let go of, what runs is asked to end."""
        self._return([(task_id, number) for task_id, number, _ in stops], slots, gathering=True)
        for task_id, number, grace_s in stops:
            if self._has(task_id, number):
                slots.stop((task_id, number), grace_s)

    def _hand_back(self, lease: Lease) -> None:
        if self._has(lease[0], lease[1]):
            del self._held[lease[0]]
            self._returned.append((lease[0], lease[1]))

    def _owes(self, all_ended: bool) -> bool:
        if not self._told_leaving or self._returned or self._ended:
            return True
        return bool(self._held) if all_ended else any(entry.outcome is not None for entry in self._held.values())

    def _has(self, task_id: TaskId, lease: int) -> bool:
        entry = self._held.get(task_id)
        return entry is not None and entry.lease == lease

    def _recorded(self, outcome: Outcome) -> None:
        if self._has(outcome[0], outcome[1]):
            del self._held[outcome[0]]
            if self._noting.open:
                self._noting.close((outcome[0], outcome[1]))

    def _take_report(self) -> tuple[list[Outcome], list[Note]]:
        """What ended or was noted and was not sent yet, bounded by bytes; the rest goes with the next exchange."""
        self._disarm()
        outcomes: list[Outcome] = []
        notes: list[Note] = []
        size = 0
        while self._ended and size < MAX_REPORT_BYTES and len(outcomes) < 4 * FULL:
            outcome = self._ended.popleft()
            if self._note(outcome):
                outcomes.append(outcome)
                size += outcome_bytes(outcome)
                if self._noting.open and (last := self._noting.last_of((outcome[0], outcome[1]))) is not None:
                    notes.append(last)
                    size += note_bytes(last)
        if self._ended:
            self._report.set()
        return outcomes, [*notes, *self._noting.take()]

    def _take_returned(self) -> list[tuple[TaskId, int]]:
        returned, self._returned = self._returned, []
        return returned

    def _collect(self) -> None:
        while self._ended:
            self._note(self._ended.popleft())

    def _note(self, outcome: Outcome) -> bool:
        """Keep the outcome until it is recorded; False where the lease was dropped while it ran."""
        entry = self._held.get(outcome[0])
        if entry is None or entry.lease != outcome[1]:
            self._noting.close((outcome[0], outcome[1]))
            return False
        entry.outcome = outcome
        return True

    def _consider_report(self, idle: bool) -> None:
        if idle or len(self._ended) >= FULL:
            self._report.set()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self._report.set)

    def _disarm(self) -> None:
        self._armed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
