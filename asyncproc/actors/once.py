"""Requests with an idempotency key: each is carried out once, whoever repeats it, and whatever became of it before.

The key is committed together with the tasks, and only one QueueActor can commit: what is under way here and what is in
the table is all there is. A request is under way until its answer is certain, or until it is said to be unknown; and
while that is so nothing new is taken at all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from asyncproc.actors.answers import Cause, Refusal
from asyncproc.core.task import KeyUsed, NewTask
from asyncproc.core.unique import Wish
from asyncproc.errors import AsyncprocError


class Keyed(NamedTuple):
    """A request as the API sends it: the answer is made before it is known whether it will be given."""

    key: str
    body_hash: bytes
    answer: bytes
    tasks: list[NewTask]
    wishes: Sequence[Wish | None] = ()
    """One for each task where some of them have one: then another task may stand for a task of these, the answer is
    changed accordingly, and the key may be empty."""

    @property
    def size(self) -> int:
        return len(self.answer) + sum(len(task[1]) for task in self.tasks)


Outcome: TypeAlias = bytes | Refusal | None
"""The answer of the first request with that key, None where it is this one, and as it was sent."""

Answers: TypeAlias = Callable[[Sequence[tuple[str, bytes]]], Awaitable[dict[str, bytes | None]]]
"""Asked with keys and hashes of bodies: those in the table with their answers, None where it was another body."""
Admit: TypeAlias = Callable[[list[NewTask]], None]
"""Raises `AsyncprocError` where these may not be enqueued now."""
Commit: TypeAlias = Callable[[list[NewTask], list[KeyUsed], Sequence[int]], Awaitable[object]]
"""Takes the tasks of some requests, their keys, and how many tasks each has. Returns
once both are committed; raises `AsyncprocError`."""
Unique: TypeAlias = Callable[[list[Keyed]], Awaitable[list[Outcome]]]
"""Carries out requests with wishes."""


def refusal_of(admit: Admit, request: Keyed) -> Refusal | None:
    """Why it may not be enqueued now."""
    try:
        admit(request.tasks)
    except AsyncprocError as error:
        return Refusal.of(error)
    return None


class _Flight:
    """The one that is under way for its key; the others wait for what becomes of it."""

    __slots__ = ("done", "request")

    def __init__(self, request: Keyed) -> None:
        self.request = request
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class Once:
    def __init__(self, answers: Answers, admit: Admit, commit: Commit, unique: Unique, kept_s: float) -> None:
        self._answers = answers
        self._admit = admit
        self._commit = commit
        self._unique = unique
        self._kept_s = kept_s
        self._flights: dict[str, _Flight] = {}
        self._carriers: set[asyncio.Task[None]] = set()
        """Tasks of their own: a caller that goes away must not end what others wait for."""

    async def enqueue(self, requests: Sequence[Keyed]) -> list[Outcome]:
        """One outcome for each. A key that is under way already is waited for."""
        flights: list[_Flight] = []
        taken_off: list[_Flight] = []
        for request in requests:
            flight = self._flights.get(request.key)
            if flight is None:
                flight = self._flights[request.key] = _Flight(request)
                taken_off.append(flight)
            flights.append(flight)
        if taken_off:
            carrier = asyncio.get_running_loop().create_task(self._carry(taken_off))
            self._carriers.add(carrier)
            carrier.add_done_callback(self._carriers.discard)
        return [await _outcome(flight, request) for flight, request in zip(flights, requests, strict=True)]

    async def _carry(self, flights: list[_Flight]) -> None:
        try:
            outcomes = await self._settle([flight.request for flight in flights])
        except Exception as error:
            # Whatever it is, those who wait are told: nobody else will ever answer them.
            for flight in flights:
                del self._flights[flight.request.key]
                flight.done.set_exception(error)
            return
        for flight, outcome in zip(flights, outcomes, strict=True):
            del self._flights[flight.request.key]
            flight.done.set_result(outcome)

    async def _settle(self, requests: list[Keyed]) -> list[Outcome]:
        try:
            known = await self._answers([(request.key, request.body_hash) for request in requests])
        except AsyncprocError as error:
            return [Refusal.of(error)] * len(requests)
        shut_out = {
            request.key: refusal for request in requests if (refusal := refusal_of(self._admit, request)) is not None
        }
        fresh = [request for request in requests if request.key not in known and request.key not in shut_out]
        wishing = [request for request in fresh if request.wishes]
        came_to = await self._unique(wishing) if wishing else []
        settled = {request.key: outcome for request, outcome in zip(wishing, came_to, strict=True)}
        refusal = await self._enqueue([request for request in fresh if not request.wishes])
        outcomes: list[Outcome] = []
        for request in requests:
            if request.key not in known and request.key in shut_out:
                outcomes.append(shut_out[request.key])
            elif request.key in known:
                outcomes.append(known[request.key] or _reused(request))
            elif request.key in settled:
                outcomes.append(settled[request.key])
            else:
                outcomes.append(refusal if refusal is not None and refusal.concerns(request.tasks) else None)
        return outcomes

    async def _enqueue(self, requests: list[Keyed]) -> Refusal | None:
        if not requests:
            return None
        tasks = [task for request in requests for task in request.tasks]
        keys = [
            (request.key, request.body_hash, request.answer, self._kept_s, [task[0] for task in request.tasks])
            for request in requests
        ]
        try:
            await self._commit(tasks, keys, [len(request.tasks) for request in requests])
        except AsyncprocError as error:
            return Refusal.of(error)
        return None


async def _outcome(flight: _Flight, request: Keyed) -> Outcome:
    if flight.request.body_hash != request.body_hash:
        return _reused(request)
    outcome = await asyncio.shield(flight.done)
    return flight.request.answer if outcome is None and flight.request is not request else outcome


def _reused(request: Keyed) -> Refusal:
    return Refusal(Cause.KEY, request.key)
