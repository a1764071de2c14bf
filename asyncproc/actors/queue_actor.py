"""The singleton: what can be asked of it, and its reign from the takeover to the end. It has no rule of its own."""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

from asyncproc import failpoints
from asyncproc.actors.answers import Cancelled, Cause, Health, Refusal, expect, or_refusal
from asyncproc.actors.changes import ChangeOutcome, Changes
from asyncproc.actors.commits import FIRST_RETRY_S, LAST_RETRY_S, Commits
from asyncproc.actors.cycle import Cycle
from asyncproc.actors.deployment import Deployment
from asyncproc.actors.garbage import search_seldom
from asyncproc.actors.guests import Guests, is_guest
from asyncproc.actors.inbox import Inbox
from asyncproc.actors.long_works import LongWorks
from asyncproc.actors.once import Keyed, Once
from asyncproc.actors.once import Outcome as KeyedOutcome
from asyncproc.actors.overflow import Counting, admitted, without
from asyncproc.actors.places import Standing
from asyncproc.actors.pools import Pools
from asyncproc.actors.repeats import Repeats
from asyncproc.actors.requests import Requests
from asyncproc.actors.scaler import Scaler
from asyncproc.actors.schedules import Scheduling
from asyncproc.actors.served import Answer, Asked, Served
from asyncproc.actors.steering import Steering
from asyncproc.actors.unique import Unique
from asyncproc.changes import Change
from asyncproc.clock import AnchoredClock, wall_now
from asyncproc.core.asked import Change as TaskChange
from asyncproc.core.batches import Batching
from asyncproc.core.dangers import TAKEN_ALONG
from asyncproc.core.decision import PollReply, RegisterReply
from asyncproc.core.events import (
    Draining,
    Enqueued,
    Event,
    Lease,
    Note,
    Outcome,
    Polled,
    Registered,
    RulesChanged,
    WorkerLost,
)
from asyncproc.core.explain import Look
from asyncproc.core.rank import to_micros
from asyncproc.core.record import Order
from asyncproc.core.step import Core
from asyncproc.core.task import KeyUsed, NewTask, Task, TaskId
from asyncproc.errors import AsyncprocError, EpochLost, SchemaTooNew, StorageUnavailable
from asyncproc.parents import Chunk
from asyncproc.precedence import kept_by_queue
from asyncproc.storage.cycle import Storage
from asyncproc.storage.disk import Disk
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.migrate import migrate
from asyncproc.storage.operations import Operations
from asyncproc.storage.retention import Retention, monthly
from asyncproc.tasks.generate_report import Row

log = logging.getLogger(__name__)

_READ_CONNECTIONS: Final = 2


class QueueActor:
    """Calls post an event and wait for the commit that answers it; one task owns the core and turns the cycle."""

    def __init__(self, deployment: Deployment) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
        settings = deployment.settings
        self._deployment = deployment
        self._core: Core | None = None
        self._repeats = Repeats()
        self._inbox = Inbox(settings.queue.max_waiting, settings.queue.max_waiting_bytes)
        kept_s = settings.retention.kept_s()
        self._storage = Storage(deployment.conninfo, settings.queue.max_buffer_bytes, monthly(kept_s))
        self._commits = Commits(self._storage, self._inbox)
        self._counting = Counting(self._storage, self._commits)
        self._retention = Retention(
            deployment.conninfo,
            kept_s,
            settings.retention.ticks,
            lambda: kept_by_queue(settings, self._steering.stored),
        )
        self._disk = Disk(deployment.conninfo, settings.storage.min_free_bytes)
        self._inspector = Inspector(deployment.conninfo, _READ_CONNECTIONS)
        self._works = LongWorks(self._storage, self._inspector, self._inbox)
        schedules = Scheduling(
            settings, deployment.types, deployment.schedule_keys, self._storage, self._inbox, lambda: self._clock.now()
        )
        self._pools = Pools(deployment, self._inbox.post)
        self._guests = Guests(self._inbox.post)
        self._scaler = Scaler(settings, self._pools, lambda: self._core, lambda: self._clock.now())
        self._steering = Steering(
            settings, self._storage, self._inbox, self._works, schedules, lambda: self._clock.now(), self._scaler.obey
        )
        self._clock = AnchoredClock(wall_now())
        self._changes = Changes(
            self._inbox, self._inspector, Operations(deployment.conninfo), lambda: self._clock.now()
        )
        keys_kept_s = settings.retention.idempotency_keys
        self._unique = Unique(
            self._inspector, self._repeats, self._steering.admit, partial(self._commit_keyed, whole=True),
            self._commits.why_away,
            lambda: self._clock.now(), self._changes.exchange, keys_kept_s,
        )  # fmt: skip
        self._once = Once(self._answers, self._steering.admit, self._commit_keyed, self._unique.enqueue, keys_kept_s)
        self._requests = Requests(deployment, self._storage, self._inspector, self._inbox, self._steering)
        self._served = Served(deployment, self._steering, self.enqueue)
        # Nothing that can fail may happen in here: Ray would never restart an actor whose start failed.
        loop = asyncio.get_running_loop()
        self._reign = _supervised(loop.create_task(self._rule()))
        self._keeper: asyncio.Task[None] | None = None
        self._caretakers: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return "QueueActor"

    # ---- what is called

    async def fingerprint(self) -> str:
        return self._deployment.fingerprint

    async def health(self) -> Health:
        away = self._commits.why_away()
        unknown = () if self._core is None else tuple(self._core.backlog.unknown_types())
        return Health(
            not away,
            away or "ok",
            self._answering(),
            self._storage.epoch,
            str(self._disk.shortage or ""),
            unknown,
            self._scaler.wants_workers(),
            tuple(self._scaler.problems()),
        )

    async def enqueue(self, tasks: list[NewTask], again: bool, sizes: Sequence[int] = ()) -> Refusal | None:
        """None once all tasks are committed. `again` says that an earlier call may have brought some of them; `sizes`
        are the numbers of tasks of the requests that share the call."""
        if away := self._commits.why_away():
            return Refusal(Cause.STORAGE, away)
        try:
            if again:
                self._repeats.note(tasks)
            if self._repeats.include(tasks):
                # The other call may be on its way to its commit right now.
                await self._inbox.flush()
                known = await self._inspector.existing([task[0] for task in tasks])
                tasks, sizes = without(known, tasks, sizes)
            if tasks:
                self._disk.admit()
                self._steering.admit(tasks)
                admitted(await self._inbox.ask(lambda ticket: Enqueued(ticket, tasks, sizes=sizes)))
        except AsyncprocError as error:
            return Refusal.of(error)
        return None

    async def enqueue_once(self, requests: list[Keyed]) -> list[KeyedOutcome]:
        """An outcome for each, once all are certain. These may come again at any time, from anybody."""
        if away := self._commits.why_away():
            return [Refusal(Cause.STORAGE, away)] * len(requests)
        return await self._once.enqueue(requests)

    async def enqueue_unique(self, requests: list[Keyed], again: bool) -> list[KeyedOutcome]:
        """The same of requests without keys, some of whose tasks are to be the only ones of their kind."""
        return await self._unique.enqueue(requests, again)

    async def retry(self, task_id: TaskId) -> bool | Refusal:
        """Run a failed task again: whether it was one. The answer follows its commit."""
        if away := self._commits.why_away():
            return Refusal(Cause.STORAGE, away)
        return await or_refusal(self._changes.retry(task_id))

    async def change_task(self, task_id: TaskId, change: TaskChange) -> ChangeOutcome | Refusal:
        """Change a task that waits. The answer follows its commit."""
        return await or_refusal(self._changes.change(task_id, change))

    async def order(self, order: Order) -> Refusal | None:
        """Do something to all tasks that match a filter: None once that is written down."""
        return await or_refusal(self._changes.order(order))

    async def cancel_operation(self, operation_id: bytes) -> bool | Refusal:
        """Whether it was running still."""
        return await or_refusal(self._changes.cancel(operation_id))

    async def explain(self, task_id: TaskId) -> Look | Refusal | None:
        """What memory knows of a task that has not ended; None where there is none."""
        if self._core is None:
            return Refusal(Cause.STORAGE, self._commits.away)
        return await or_refusal(self._changes.explain(self._core, task_id, self._scaler.problem))

    async def change(self, change: Change) -> Refusal | None:
        """None once what an operator wants is stored and in force."""
        if away := self._commits.why_away():
            return Refusal(Cause.STORAGE, away)
        return await or_refusal(self._steering.change(change))

    async def purge(self, queue: str) -> tuple[int, bool] | Refusal:
        """Cancel all that waits in a queue: how many are cancelled by now, and whether that is all."""
        if away := self._commits.why_away():
            return Refusal(Cause.STORAGE, away)
        return await or_refusal(self._works.purge(queue, to_micros(self._clock.now())))

    async def cancel(self, task_id: TaskId, reason: str, grace_s: float) -> Cancelled | Refusal:
        """End a task; what became of it follows the commit."""
        return await or_refusal(self._changes.cancel_task(task_id, reason, grace_s))

    async def register(
        self,
        worker: str,
        pool: str,
        concurrency: int,
        held: list[tuple[TaskId, int]],
        seen_epoch: int = 0,
        types: tuple[str, ...] | None = None,
        batching: Mapping[str, Batching] = MappingProxyType({}),
        witness: Sequence[object] = (),
    ) -> tuple[int, int, list[TaskId]]:
        """A worker introduces itself; answers epoch, session and the leases it must forget.

        `seen_epoch` is the highest it has met. Where that is a later one this reign is over: as long as there is
        nothing to write, nothing else would ever say so. `witness` is what a guest has from the call of that name.
        """
        if is_guest(worker):
            self._guests.introduce(worker, witness)
        elif not self._pools.introduce(worker):
            raise ValueError(f"{worker} is not needed any more")
        # By its code: one of a release before gives up a poll that is not answered in the usual time.
        patient = worker.rpartition(".")[2].startswith(self._deployment.fingerprint)
        reply = await self._inbox.ask(
            lambda ticket: Registered(ticket, worker, pool, concurrency, held, types, batching, patient)
        )
        registered = expect(reply, RegisterReply)
        if seen_epoch > self._storage.epoch:
            log.warning("%s; %s has met epoch %d", EpochLost(self._storage.epoch), worker, seen_epoch)
            os._exit(1)
        return self._storage.epoch, registered.session, registered.dropped

    async def poll(
        self,
        worker: str,
        session: int,
        outcomes: list[Outcome],
        returned: list[tuple[TaskId, int]],
        leaving: bool = False,
        notes: Sequence[Note] = (),
    ) -> tuple[int, list[Lease] | None, list[tuple[TaskId, int]], list[tuple[TaskId, int, float]]]:
        """A worker reports and asks; answers the epoch, leases, or None where it must register first, and what is to be
        returned if it has not begun, and what is to come to an end."""
        outcomes = self._steering.completed(outcomes)
        reply = await self._inbox.ask(
            lambda ticket: Polled(ticket, worker, session, outcomes, returned, leaving, notes)
        )
        answer = expect(reply, PollReply)
        return self._storage.epoch, answer.leases, answer.recalled, answer.stops

    async def witness(self, worker: str) -> None:
        """Of a worker that nobody here started: returns only once it is gone."""
        await self._guests.witness(worker)

    async def served(self, asked: Asked) -> Answer | Refusal:
        """Of an adapter of Ray Serve."""
        return await or_refusal(self._served.answer(asked))

    async def pools(self) -> list[Standing]:
        """How the workers of all pools stand."""
        return self._scaler.standings()

    async def figures(self) -> list[Row]:
        """For reports: rows of state, queue, type, number, mean run time, longest wait."""
        return await self._inspector.figures()

    async def parents(self, task_id: TaskId, start: int) -> Chunk | Refusal:
        """For a running task: some of the tasks that it depended on, from number `start` on."""
        return await or_refusal(self._inspector.parents(task_id, start))

    async def drain(self, grace_s: float) -> None:
        """Give out nothing more, let what runs end, hand the rest back; returns when all of it is committed."""
        self._inbox.post(Draining())
        if self._keeper is not None:
            self._keeper.cancel()
        await asyncio.gather(self._pools.drain(grace_s), self._guests.drain(self._scaler.held, grace_s))
        await self._inbox.flush()

    # ---- the reign

    async def _answers(self, keys: Sequence[tuple[str, bytes]]) -> dict[str, bytes | None]:
        return await self._inspector.answers(keys, self._clock.now())

    async def _commit_keyed(
        self,
        tasks: list[NewTask],
        keys: list[KeyUsed],
        sizes: Sequence[int],
        replaced: Sequence[tuple[Task, NewTask]] = (),
        whole: bool = False,
    ) -> bool:
        self._disk.admit()
        reply = await self._inbox.ask(
            lambda ticket: Enqueued(ticket, tasks, keys, replaced=replaced, sizes=sizes, whole=whole)
        )
        return not admitted(reply).stale

    async def _rule(self) -> None:
        events: list[Event] = await self._take_over()
        search_seldom()
        self._core = core = Core(self._deployment.settings.core(), self._storage.epoch)
        loop = asyncio.get_running_loop()
        self._keeper = _supervised(loop.create_task(self._scaler.run()))
        self._caretakers = [
            _supervised(loop.create_task(care))
            for care in (
                self._retention.run(self._storage.epoch),
                self._disk.watch(),
                self._changes.run(self._storage.epoch),
                self._changes.expire(),
                self._steering.run(),
                self._works.run(),
                self._requests.listen(),
                self._requests.run(),
            )
        ]
        await Cycle(core, self._inbox, self._commits, self._counting, self._clock).run(events)

    async def _take_over(self) -> list[Event]:
        """Begin the reign: schema, epoch, what runs; whoever ran it and is no more has lost it."""
        wait_s = FIRST_RETRY_S
        while True:
            try:
                await migrate(self._deployment.conninfo)
                failpoints.hit("queue.before_epoch")
                self._clock = AnchoredClock(await self._storage.take_over())
                failpoints.hit("queue.after_epoch")
                await self._steering.load()
                rules = self._steering.rules
                aging_s = {name: queue.aging_s for name, queue in rules.queues.items()}
                loaded = await self._storage.load(aging_s, rules.default.aging_s)
                failpoints.hit("queue.after_load")
                break
            except (StorageUnavailable, SchemaTooNew) as error:
                self._commits.now_away(error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LAST_RETRY_S)
        await self._inspector.open()
        alive = await self._pools.find() | await self._guests.find({task.worker for task in loaded.running})
        self._commits.away = ""
        log.info("epoch %d begins: %d tasks run, %d workers live", self._storage.epoch, len(loaded.running), len(alive))
        gone = sorted({task.worker for task in loaded.running} - alive)
        lost = [WorkerLost(name, "it was gone when the reign began", proof=TAKEN_ALONG) for name in gone]
        return [RulesChanged(0, rules), loaded, self._steering.schedules, *lost]

    def _answering(self) -> int:
        """Workers that hold a poll open, or were heard from within the time of one."""
        if self._core is None:
            return 0
        now, poll_s = self._clock.now(), self._core.settings.poll_s
        return sum(1 for worker in self._core.workers.values() if worker.polls or now - worker.heard_at < poll_s)


def _supervised(task: "asyncio.Task[None]") -> "asyncio.Task[None]":
    task.add_done_callback(_end_process)
    return task


def _end_process(task: "asyncio.Task[None]") -> None:
    """Nothing mends a reign that is over, or a cycle that failed: the next process starts from the table."""
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, EpochLost):
        log.warning("%s", error)
    else:
        log.critical("the QueueActor ends: %s", error, exc_info=error)
    os._exit(1)
