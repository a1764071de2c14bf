"""What people change of the tasks that are there: one task as it is asked for, many in batches that give way.

A row is read and then changed by the core, one such exchange at a time: between the two nobody else changes it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from asyncproc.actors.answers import Cancelled, expect
from asyncproc.actors.inbox import Inbox
from asyncproc.clock import monotonic
from asyncproc.core.asked import Action, Change
from asyncproc.core.decision import BulkReply, CancelReply, ChangeReply, RetryReply
from asyncproc.core.events import BulkAsked, CancelAsked, ChangeAsked, OverdueFound, RetryAsked
from asyncproc.core.explain import Look, look_at
from asyncproc.core.record import Order
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.task import Task, TaskId
from asyncproc.core.unique import NOT_ENDED, Wanted
from asyncproc.errors import StorageUnavailable, TooManyOperations, UniqueConflict
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.operations import Found, Operations, Running

log = logging.getLogger(__name__)

TRIES: Final = 5
"""How often a task is read anew that was not as it was read. Mostly a worker has just got it."""
BATCH_S: Final = 0.05
"""How long a batch should take: whatever arrives in the meantime waits for it."""
FEWEST: Final = 50
MOST: Final = 2_000
LOOK_AT: Final = 20_000
"""Rows that one page looks at, where few of them match."""
RATED_S: Final = 0.2
"""An operation with a rate does so much of it at a time."""
EXPIRE_S: Final = 1.0
"""How often tasks are looked for that wait past an instant of theirs."""
OVERDUE_AT_ONCE: Final = 1_000
MAX_RUNNING: Final = 100
"""Operations that run at once."""
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0


class ChangeOutcome(NamedTuple):
    """Whether there was such a task, and the state that forbids the change; `contended` where it never held still."""

    is_there: bool
    refused: State | None = None
    contended: bool = False


@dataclass(slots=True)
class _Pace:
    rows: int = 500
    look_at: int = 1_000
    free_at: float = 0.0
    """By the monotonic clock, when the next batch may go."""
    wait_s: float = _FIRST_RETRY_S

    def most(self, rate: float | None) -> int:
        return self.rows if rate is None else max(1, min(self.rows, int(rate * RATED_S)))

    def failed(self) -> None:
        """Try again later, and less."""
        self.rows, self.look_at = FEWEST, max(FEWEST, self.look_at // 4)
        self.wait_s = min(2 * self.wait_s, _LAST_RETRY_S)
        self.free_at = monotonic() + self.wait_s

    def went(self, found: Found, most: int, rate: float | None, began_at: float, is_busy: bool) -> None:
        """A batch took until now."""
        number, now = len(found.tasks), monotonic()
        took_s, self.wait_s = now - began_at, _FIRST_RETRY_S
        if number == most:
            self.look_at = max(1_000, self.look_at // 2)
            self.rows = max(FEWEST, min(MOST, int(number * BATCH_S / max(took_s, 1e-6)), 2 * self.rows))
        elif number < most // 2:
            self.look_at = min(LOOK_AT, 2 * self.look_at)
        if rate is not None:
            self.free_at = max(now, self.free_at + number / rate)
        else:
            # Half of the time belongs to those who came for something else.
            self.free_at = now + took_s if is_busy else now


class Changes:
    """`run` is the caretaker that carries out operations; all else is called."""

    def __init__(self, inbox: Inbox, inspector: Inspector, operations: Operations, now: Callable[[], float]) -> None:
        self._inbox = inbox
        self._inspector = inspector
        self._operations = operations
        self._now = now
        self.exchange = self._exchange = asyncio.Lock()
        """Held from the reading of a row until its change is committed."""
        self._asked = asyncio.Event()
        self._paces: dict[bytes, _Pace] = {}

    async def change(self, task_id: TaskId, change: Change) -> ChangeOutcome:
        """Once it is committed. May raise `StorageUnavailable`."""
        for _ in range(TRIES):
            async with self._exchange:
                task = await self._inspector.live_task(task_id)
                if task is None:
                    return ChangeOutcome(is_there=False)
                reply = await self._change(task, change)
            if not reply.stale:
                return ChangeOutcome(is_there=True, refused=reply.refused)
        return ChangeOutcome(is_there=True, contended=True)

    async def cancel_task(self, task_id: TaskId, reason: str, grace_s: float) -> Cancelled:
        """Once it is committed. May raise `StorageUnavailable`."""
        for _ in range(TRIES):
            async with self._exchange:
                task = await self._inspector.live_task(task_id)
                if task is None:
                    return Cancelled.GONE
                reply = await self._inbox.ask(partial(CancelAsked, task=task, reason=reason, grace_s=grace_s))
            if not isinstance(reply, CancelReply):
                raise TypeError(f"asked to cancel, answered {type(reply).__name__}")
            if not reply.stale:
                return Cancelled.ASKED if reply.is_running else Cancelled.ENDED
        raise StorageUnavailable(f"the task changed {TRIES} times while it was looked at")

    async def retry(self, task_id: TaskId) -> bool:
        """Once it is committed, whether it was a failed task. May raise `StorageUnavailable`, and `UniqueConflict`."""
        task = await self._inspector.finished_task(task_id)
        if task is None:
            return False
        if not task.terms.unique_key:
            return await self._retry(task)
        async with self._exchange:
            if not await self._whose_keys_are_free([task]):
                holder = (await self._inspector.holders([_not_ended(task)]))[_not_ended(task)]
                raise UniqueConflict({None: (holder.id, holder.state)})
            return await self._retry(task)

    async def expire(self) -> None:
        """For as long as the reign lasts: end what waits past an instant of its own and may never come up."""
        wait_s = EXPIRE_S
        while True:
            await asyncio.sleep(wait_s)
            try:
                async with self._exchange:
                    over = await self._inspector.overdue(self._now(), OVERDUE_AT_ONCE)
                    if over:
                        await self._inbox.ask(partial(OverdueFound, tasks=over))
                wait_s = 0.0 if len(over) >= OVERDUE_AT_ONCE else EXPIRE_S
            except StorageUnavailable as error:
                log.warning("tasks past their instants are not looked for: %s", error)
                wait_s = _LAST_RETRY_S

    async def order(self, order: Order) -> None:
        """Returns once it is written down. May raise `StorageUnavailable`, and `TooManyOperations`."""
        if len(self._paces) >= MAX_RUNNING:
            raise TooManyOperations(len(self._paces))
        now, change = self._now(), order.change
        if order.action is Action.POSTPONE and change.delay_s is not None:
            # A batch that is repeated must mean the same instant.
            change = change._replace(ready_at=now + change.delay_s, delay_s=None)
        await self._operations.add(Order(order.id, order.action, order.narrowed, change, order.rate), now)
        self._asked.set()

    async def cancel(self, operation_id: bytes) -> bool:
        return await self._operations.cancel(operation_id)

    async def explain(self, core: Core, task_id: TaskId, problem: Callable[[str], str]) -> Look | None:
        """A look at the core between two steps; `problem` says why a pool lacks workers.

        May raise `StorageUnavailable`."""
        task = core.tasks.get(task_id) or await self._inspector.live_task(task_id)
        return None if task is None else look_at(core, core.tasks.get(task_id, task), problem)

    async def run(self, epoch: int) -> None:
        """Carry out operations as long as the epoch reigns. Raises `EpochLost`; all else is tried again."""
        await self._operations.open(epoch)
        wait_s = _FIRST_RETRY_S
        while True:
            self._asked.clear()
            try:
                rest_s = await self._round()
                wait_s = _FIRST_RETRY_S
            except StorageUnavailable as error:
                log.warning("operations: %s", error)
                rest_s, wait_s = wait_s, min(2 * wait_s, _LAST_RETRY_S)
            try:
                async with asyncio.timeout(rest_s):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def _round(self) -> float | None:
        """A batch of each operation whose turn it is; how long there is nothing to do then, None where nobody knows."""
        running = await self._operations.running()
        self._paces = {each.order.id: self._paces.get(each.order.id, _Pace(free_at=monotonic())) for each in running}
        for operation in running:
            pace = self._paces[operation.order.id]
            if pace.free_at <= monotonic():
                try:
                    await self._batch(operation, pace)
                except StorageUnavailable as error:
                    # It must not keep the others from going on: whatever is wrong may be of its own making.
                    log.warning("operation %s: %s; tried again", operation.order.id.hex(), error)
                    pace.failed()
        rests = [pace.free_at - monotonic() for pace in self._paces.values()]
        return max(0.0, min(rests)) if rests else None

    async def _batch(self, operation: Running, pace: _Pace) -> None:
        order, began_at = operation.order, monotonic()
        most = pace.most(order.rate)
        async with self._exchange:
            found = await self._operations.found(operation, pace.look_at, most)
            done = await self._carry_out(operation, found.tasks) if found.tasks else 0
        if not await self._operations.advance(operation, found, done):
            log.info("operation %s was cancelled", order.id.hex())
        elif found.is_last:
            log.info("operation %s (%s) is done", order.id.hex(), order.action)
        pace.went(found, most, order.rate, began_at, self._inbox.is_busy)

    async def _carry_out(self, operation: Running, tasks: Sequence[Task]) -> int:
        """How many of them it was done to."""
        order, done = operation.order, 0
        if order.action is Action.DELETE:
            return await self._operations.delete(operation, tasks)
        reason = f"cancelled by operation {order.id.hex()}"
        for _ in range(TRIES):
            reply = await self._bulk(order, tasks, reason)
            done += len(reply.done)
            tasks = await self._operations.again(operation, reply.stale) if reply.stale else []
            if not tasks:
                break
        return done

    async def _change(self, task: Task, change: Change) -> ChangeReply:
        reply = await self._inbox.ask(lambda ticket: ChangeAsked(ticket, task, change))
        return expect(reply, ChangeReply)

    async def _retry(self, task: Task) -> bool:
        reply = await self._inbox.ask(lambda ticket: RetryAsked(ticket, task))
        return expect(reply, RetryReply).refused is None

    async def _whose_keys_are_free(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Those that may be run again: of a unique key one, and that only where no other has it that has not ended."""
        if not any(task.terms.unique_key for task in tasks):
            return tasks
        taken = set(await self._inspector.holders([_not_ended(task) for task in tasks if task.terms.unique_key]))
        free: list[Task] = []
        for task in tasks:
            if not task.terms.unique_key:
                free.append(task)
            elif (slot := _not_ended(task)) not in taken:
                taken.add(slot)
                free.append(task)
        return free

    async def _bulk(self, order: Order, tasks: Sequence[Task], reason: str) -> BulkReply:
        if order.action is Action.RETRY:
            tasks = await self._whose_keys_are_free(tasks)
        reply = await self._inbox.ask(lambda ticket: BulkAsked(ticket, order.action, tasks, order.change, reason))
        return expect(reply, BulkReply)


def _not_ended(task: Task) -> Wanted:
    """Whoever is in the way of running it again."""
    return Wanted(task.options.type, task.terms.unique_key, NOT_ENDED, 0.0)
