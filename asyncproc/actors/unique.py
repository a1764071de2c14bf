"""Requests with tasks that are to be the only ones with their key. They are taken as they come, all that wait at once:
who holds their keys is read, what becomes of them is decided, and it is committed; only then the next ones are taken.

Only one QueueActor can commit, and within it only this adds holders of keys, or revives them under the same lock: what
was read still holds when it is committed, but that some may have ended.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from asyncproc.actors.answers import Refusal
from asyncproc.actors.once import Admit, Keyed, Outcome, refusal_of
from asyncproc.actors.repeats import Repeats
from asyncproc.clock import id_text
from asyncproc.core.task import KeyUsed, NewTask, Task, TaskId
from asyncproc.core.unique import Asked, Holder, Settled, Settling, Wanted
from asyncproc.errors import AsyncprocError, QueueFull, StorageUnavailable, UniqueConflict

MAX_TASKS_AT_ONCE: Final = 5_000
TRIES: Final = 5
"""How often all is decided anew because a task that was to be replaced has just begun."""

Commit: TypeAlias = Callable[[list[NewTask], list[KeyUsed], Sequence[int], list[tuple[Task, NewTask]]], Awaitable[bool]]
"""Tasks to enqueue, keys, how many of the tasks are of each request, and tasks as read with what they are to be from
now on. Returns once all is committed: False where one of the last was not as it was read. Raises `AsyncprocError`;
where that is `QueueFull`, nothing is committed."""


class Reads(Protocol):
    """What the `Inspector` reads of the tables."""

    async def holders(self, wanted: Sequence[Wanted]) -> dict[Wanted, Holder]: ...
    async def existing(self, ids: Sequence[TaskId]) -> set[TaskId]: ...
    async def live_tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Task]: ...


class _Call(NamedTuple):
    request: Keyed
    done: "asyncio.Future[Outcome]"


class Unique:
    def __init__(
        self,
        reads: Reads,
        repeats: Repeats,
        admit: Admit,
        commit: Commit,
        why_away: Callable[[], str],
        now: Callable[[], float],
        exchange: asyncio.Lock,
        kept_s: float,
    ) -> None:
        """`exchange` is held by whoever reads tasks to change them."""
        self._reads = reads
        self._repeats = repeats
        self._admit = admit
        self._commit = commit
        self._why_away = why_away
        self._now = now
        self._exchange = exchange
        self._kept_s = kept_s
        self._waiting: deque[_Call] = deque()
        self._carrier: asyncio.Task[None] | None = None
        """A task of its own: a caller that goes away must not end what others wait for."""

    async def enqueue(self, requests: Sequence[Keyed], again: bool = False) -> list[Outcome]:
        """For each None where all of its tasks are new, or the answer in which others stand for some of them. `again`
        says that an earlier call may have brought some of them."""
        if again:
            self._repeats.note(_tasks(requests))
        loop = asyncio.get_running_loop()
        calls = [_Call(request, loop.create_future()) for request in requests]
        self._waiting.extend(calls)
        if self._carrier is None:
            self._carrier = loop.create_task(self._carry())
        return await asyncio.gather(*(call.done for call in calls))

    async def _carry(self) -> None:
        try:
            while self._waiting:
                calls = self._take()
                try:
                    async with self._exchange:
                        outcomes = await self._settle([call.request for call in calls])
                except Exception as error:
                    # Whatever it is, those who wait are told: nobody else will ever answer them.
                    for call in calls:
                        if not call.done.done():
                            call.done.set_exception(error)
                    continue
                for call, outcome in zip(calls, outcomes, strict=True):
                    if not call.done.done():
                        call.done.set_result(outcome)
        finally:
            self._carrier = None

    def _take(self) -> list[_Call]:
        calls: list[_Call] = []
        tasks = 0
        while self._waiting and (not calls or tasks + len(self._waiting[0].request.tasks) <= MAX_TASKS_AT_ONCE):
            calls.append(self._waiting.popleft())
            tasks += len(calls[-1].request.tasks)
        return calls

    async def _settle(self, requests: list[Keyed]) -> list[Outcome]:
        if away := self._why_away():
            # The commit before this one may be unknown still: what it brought is not to be seen yet.
            return [Refusal.of(StorageUnavailable(away))] * len(requests)
        outcomes: list[Outcome] = [refusal_of(self._admit, request) for request in requests]
        taken = [number for number, outcome in enumerate(outcomes) if outcome is None]
        if not taken:
            return outcomes
        try:
            settled = await self._decided([requests[number] for number in taken], TRIES)
        except AsyncprocError as error:
            return [Refusal.of(error) if outcome is None else outcome for outcome in outcomes]
        for number, outcome in zip(taken, settled, strict=True):
            outcomes[number] = outcome
        return outcomes

    async def _decided(self, requests: list[Keyed], tries: int) -> list[Outcome]:
        now = self._now()
        asked = [Asked(request.tasks, request.wishes) for request in requests]
        tasks = _tasks(requests)
        if tries < TRIES:
            # The table may have refused the replacement alone: then what was new is there.
            self._repeats.note(tasks)
        known = await self._reads.existing([task[0] for task in tasks]) if self._repeats.include(tasks) else ()
        wanted = list(dict.fromkeys(each for one in asked for each in one.wanted(now)))
        settling = Settling(await self._reads.holders(wanted) if wanted else {}, known, now)
        settled = [settling.settle(one) for one in asked]
        keys: list[KeyUsed] = []
        answers: list[bytes | None] = []
        for request, one in zip(requests, settled, strict=True):
            answer = _amended(request.answer, one) if one.found else None
            answers.append(answer)
            if request.key and not one.conflicts:
                keys.append((request.key, request.body_hash, answer or request.answer, self._kept_s, one.ids()))
        try:
            if not await self._committed(settling, settled, keys):
                if not tries:
                    raise StorageUnavailable(f"a task that was to be replaced changed {TRIES} times meanwhile")
                return await self._decided(requests, tries - 1)
            refusal = None
        except QueueFull as error:
            return await self._without_full(requests, settled, error, tries)
        except AsyncprocError as error:
            refusal = Refusal.of(error)
        return [
            _outcome(request, one, answer, refusal)
            for request, one, answer in zip(requests, settled, answers, strict=True)
        ]

    async def _without_full(
        self, requests: list[Keyed], settled: Sequence[Settled], error: QueueFull, tries: int
    ) -> list[Outcome]:
        """Nothing is done yet. Those that found no room are refused, and those that lean on them; the others are
        decided anew."""
        refusal = Refusal.of(error)
        gone = {task_id for full in error.full for task_id in full.task_ids}
        outcomes: list[Outcome] = []
        left: list[int] = []
        for number, one in enumerate(settled):
            outcomes.append(refusal)
            if gone.isdisjoint(one.ids()):
                left.append(number)
            else:
                gone.update(one.new)
        if len(left) < len(settled):
            others = await self._decided([requests[number] for number in left], tries) if left else []
            for number, outcome in zip(left, others, strict=True):
                outcomes[number] = outcome
        return outcomes

    async def _committed(self, settling: Settling, settled: Sequence[Settled], keys: list[KeyUsed]) -> bool:
        """False where a task that was to be replaced was not as it was read."""
        tasks, contents = settling.tasks(), settling.replaced()
        rows = await self._reads.live_tasks([content[0] for content in contents]) if contents else {}
        if len(rows) < len(contents):
            return False
        if not tasks and not keys and not contents:
            return True
        new = {task[0] for task in tasks}
        sizes = [sum(task_id in new for task_id in one.new) for one in settled]
        return await self._commit(tasks, keys, sizes, [(rows[content[0]], content) for content in contents])


def _tasks(requests: Sequence[Keyed]) -> list[NewTask]:
    return [task for request in requests for task in request.tasks]


def _outcome(request: Keyed, settled: Settled, answer: bytes | None, refusal: Refusal | None) -> Outcome:
    if refusal is not None and (settled.leans or (request.key and not settled.conflicts)):
        rejected = {task_id for task_id, _ in refusal.rejected}
        if not rejected or not rejected.isdisjoint(settled.ids()):
            return refusal
    if settled.conflicts:
        conflicts: dict[int | None, tuple[TaskId, str]] = {
            index: (holder.id, holder.state) for index, holder in settled.conflicts.items()
        }
        return Refusal.of(UniqueConflict(conflicts))
    return answer


def _amended(answer: bytes, settled: Settled) -> bytes:
    """An answer made as if all of its tasks were new."""
    document = json.loads(answer)
    for index, holder in settled.found.items():
        document["tasks"][index] |= {
            "id": id_text(holder.id),
            "priority": holder.priority,
            "status": holder.state,
            "queue": holder.queue,
            "existing": True,
        }
        if index in settled.replaced:
            document["tasks"][index]["replaced"] = True
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
