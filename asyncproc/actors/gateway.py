"""The API's way to the QueueActor: few calls for many requests, and an answer within a deadline."""

from typing import TypeVar

from asyncproc.actors.answers import Cancelled, Cause, Health, Refusal
from asyncproc.actors.calls import Calls
from asyncproc.actors.changes import ChangeOutcome
from asyncproc.actors.deployment import QueueHandle
from asyncproc.actors.lane import Lane
from asyncproc.actors.long_works import PURGE_WAIT_S
from asyncproc.actors.once import Keyed
from asyncproc.actors.once import Outcome as KeyedOutcome
from asyncproc.actors.places import Standing
from asyncproc.changes import Change
from asyncproc.core.asked import Change as TaskChange
from asyncproc.core.explain import Look
from asyncproc.core.record import Order
from asyncproc.core.task import NewTask, TaskId

A = TypeVar("A")


class Gateway:
    """One per API replica. All of its calls may be repeated: tasks carry the ids, or the key, by which they are known.

    How many requests wait in here is for the caller to bound.
    """

    def __init__(self, queue: QueueHandle, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._enqueues, self._retries, self._healths = Calls(queue), Calls(queue), Calls(queue)
        self._steering = Calls(queue)
        self._changes = Calls(queue)
        self._plain: Lane[list[NewTask], None] = Lane(self._enqueue, timeout_s)
        self._keyed: Lane[Keyed, bytes] = Lane(self._enqueue_once, timeout_s)
        self._unique: Lane[Keyed, bytes] = Lane(self._enqueue_unique, timeout_s)

    async def enqueue(self, tasks: list[NewTask]) -> None:
        """Returns once the tasks are committed.

        Raises `QueueUnavailable` or `StorageUnavailable` where that is refused or unknown, `Overloaded` where too many
        wait already, and `TasksRejected` where Postgres will not have one of them.
        """
        await self._plain.carry(tasks, len(tasks), sum(len(task[1]) for task in tasks))

    async def enqueue_once(self, request: Keyed) -> bytes:
        """The answer of the first request with that key, once its tasks are committed.

        Raises the same, and `KeyReused` where the first one had another body.
        """
        return await self._keyed.carry(request, len(request.tasks), request.size)

    async def enqueue_unique(self, request: Keyed) -> bytes:
        """The same of a request without a key, but with wishes. Raises `UniqueConflict` too."""
        return await self._unique.carry(request, len(request.tasks), request.size)

    def waited_s(self) -> float:
        """How long requests to enqueue wait already before they are sent."""
        return max(self._plain.waited_s(), self._keyed.waited_s(), self._unique.waited_s())

    async def retry(self, task_id: TaskId) -> bool:
        """Run a failed task again: whether it was one. Raises `QueueUnavailable`, `StorageUnavailable` and
        `UniqueConflict`."""
        answer = await self._retries.call(lambda actor, _: actor.retry.remote(task_id), self._timeout_s)
        if isinstance(answer, Refusal):
            raise answer.error()
        return bool(answer)

    async def change_task(self, task_id: TaskId, change: TaskChange) -> ChangeOutcome:
        """Change a task that waits. Raises `QueueUnavailable` and `StorageUnavailable`."""
        call = self._steering.call(lambda actor, _: actor.change_task.remote(task_id, change), self._timeout_s)
        answer: ChangeOutcome | Refusal = await call
        return _outcome(answer)

    async def order(self, order: Order) -> None:
        """Returns once it is written down. Raises the same, and `TooManyOperations`."""
        _outcome(await self._steering.call(lambda actor, _: actor.order.remote(order), self._timeout_s))

    async def cancel_operation(self, operation_id: bytes) -> bool:
        """Whether it was running. Raises the same."""
        call = self._steering.call(lambda actor, _: actor.cancel_operation.remote(operation_id), self._timeout_s)
        return bool(_outcome(await call))

    async def explain(self, task_id: TaskId) -> Look | None:
        """What memory knows of a task that has not ended. Raises the same."""
        call = self._steering.call(lambda actor, _: actor.explain.remote(task_id), self._timeout_s)
        answer: Look | Refusal | None = await call
        return _outcome(answer)

    async def change(self, change: Change) -> None:
        """Returns once it is in force. Raises `SettingsRefused`, `QueueUnavailable` and `StorageUnavailable`."""
        answer = await self._changes.call(lambda actor, _: actor.change.remote(change), self._timeout_s)
        if answer is not None:
            raise answer.error()

    async def pools(self) -> list[Standing]:
        """How the workers of all pools stand. Raises `QueueUnavailable`."""
        call = self._steering.call(lambda actor, _: actor.pools.remote(), self._timeout_s)
        standings: list[Standing] = await call
        return standings

    async def purge(self, queue: str) -> tuple[int, bool]:
        """Cancel all that waits in a queue: how many are cancelled already, and whether that is all. Raises
        `QueueUnavailable` and `StorageUnavailable`."""
        timeout_s = self._timeout_s + PURGE_WAIT_S
        answer = await self._changes.call(lambda actor, _: actor.purge.remote(queue), timeout_s)
        if isinstance(answer, Refusal):
            raise answer.error()
        cancelled, is_done = answer
        return int(cancelled), bool(is_done)

    async def cancel(self, task_id: TaskId, reason: str, grace_s: float) -> Cancelled:
        """End a task. Raises `QueueUnavailable` and `StorageUnavailable`."""
        answer = await self._retries.call(
            lambda actor, _: actor.cancel.remote(task_id, reason, grace_s), self._timeout_s
        )
        if isinstance(answer, Refusal):
            raise answer.error()
        return Cancelled(answer)

    async def health(self, timeout_s: float) -> Health:
        """Raises `QueueUnavailable`."""
        return Health(*await self._healths.call(lambda actor, _: actor.health.remote(), timeout_s, once=True))

    async def _enqueue(self, requests: list[list[NewTask]]) -> list[Exception | None]:
        tasks = [task for request in requests for task in request]
        sizes = [len(request) for request in requests]
        refusal = await self._enqueues.call(
            lambda actor, again: actor.enqueue.remote(tasks, again, sizes), self._timeout_s
        )
        if refusal is None:
            return [None] * len(requests)
        if refusal.cause is Cause.DRAINING:
            # Nothing of the call was enqueued: the others did not ask for that queue.
            others = iter(await self._enqueue(spared) if (spared := _not(refusal, requests)) else ())
            return [refusal.error() if refusal.concerns(request) else next(others) for request in requests]
        return [refusal.error(request) if refusal.concerns(request) else None for request in requests]

    async def _enqueue_once(self, requests: list[Keyed]) -> list[bytes | Exception]:
        return _answers(
            requests,
            await self._enqueues.call(lambda actor, _: actor.enqueue_once.remote(requests), self._timeout_s),
        )

    async def _enqueue_unique(self, requests: list[Keyed]) -> list[bytes | Exception]:
        return _answers(
            requests,
            await self._enqueues.call(
                lambda actor, again: actor.enqueue_unique.remote(requests, again), self._timeout_s
            ),
        )


def _answers(requests: list[Keyed], outcomes: list[KeyedOutcome]) -> list[bytes | Exception]:
    answers: list[bytes | Exception] = []
    for request, outcome in zip(requests, outcomes, strict=True):
        if outcome is None:
            answers.append(request.answer)
        else:
            answers.append(outcome.error(request.tasks) if isinstance(outcome, Refusal) else outcome)
    return answers


def _outcome(answer: A | Refusal) -> A:
    if isinstance(answer, Refusal):
        raise answer.error()
    return answer


def _not(refusal: Refusal, requests: list[list[NewTask]]) -> list[list[NewTask]]:
    return [request for request in requests if not refusal.concerns(request)]
