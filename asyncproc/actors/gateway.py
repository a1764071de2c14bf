"""The API's way to the QueueActor: few calls for many requests, and an answer within a deadline."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from ray.exceptions import ActorDiedError, RayError

from asyncproc import failpoints
from asyncproc.actors.answers import Health, Refusal
from asyncproc.actors.deployment import QueueHandle
from asyncproc.core.task import NewTask, TaskId
from asyncproc.errors import QueueUnavailable

log = logging.getLogger(__name__)

MAX_TASKS_A_CALL: Final = 5_000
MAX_BYTES_A_CALL: Final = 16 * 1024 * 1024
CALLS_AT_ONCE: Final = 2
"""One is on its way while the commit of the other runs."""
_QUEUEING_S: Final = 1.0
"""What a request may wait for its call, beyond the time that the call has."""
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0


@dataclass(slots=True, eq=False)
class _Request:
    tasks: list[NewTask]
    size: int
    """Bytes of payload."""
    done: "asyncio.Future[None]"

    def fits(self, tasks: int, size: int) -> bool:
        """Whether it can join a call that carries so much."""
        return tasks + len(self.tasks) <= MAX_TASKS_A_CALL and size + self.size <= MAX_BYTES_A_CALL


class Gateway:
    """One per API replica. All of its calls may be repeated: tasks carry the ids under which they are known."""

    def __init__(self, queue: QueueHandle, timeout_s: float) -> None:
        self._queue = queue
        self._timeout_s = timeout_s
        self._waiting: deque[_Request] = deque()
        self._sending = 0
        self._senders: set[asyncio.Task[None]] = set()
        """Kept because the loop alone would forget a running task."""

    async def enqueue(self, tasks: list[NewTask]) -> None:
        """Returns once the tasks are committed.

        Raises `QueueUnavailable` or `StorageUnavailable` where that is refused or unknown, `Overloaded` where too many
        wait already, and `TasksRejected` where Postgres will not have one of them.
        """
        request = _Request(tasks, sum(len(task[1]) for task in tasks), asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._sending < CALLS_AT_ONCE:
            self._sending += 1
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        try:
            async with asyncio.timeout(self._timeout_s + _QUEUEING_S):
                await request.done
        except TimeoutError:
            raise QueueUnavailable(f"no answer within {self._timeout_s:g} s") from None

    async def retry(self, task_id: TaskId) -> bool:
        """Run a failed task again: whether it was one. Raises `QueueUnavailable` and `StorageUnavailable`."""
        answer = await self._call(lambda actor, _: actor.retry.remote(task_id))
        if isinstance(answer, Refusal):
            raise answer.error()
        return bool(answer)

    async def health(self, timeout_s: float) -> Health:
        """Raises `QueueUnavailable`."""
        try:
            async with asyncio.timeout(timeout_s):
                actor = await self._queue.get()
                return Health(*await actor.health.remote())
        except ActorDiedError as error:
            self._queue.forget()
            raise QueueUnavailable("ActorDiedError") from error
        except (RayError, TimeoutError, ValueError) as error:
            raise QueueUnavailable(type(error).__name__) from error

    async def _send(self) -> None:
        """Carry what waits, as much as there is in one call, until nothing waits."""
        try:
            while self._waiting:
                if requests := self._take():
                    await self._carry(requests)
        finally:
            # Here and not when the task is seen to be done: a request that came in between would wait for ever.
            self._sending -= 1

    def _take(self) -> list[_Request]:
        """Requests for one call, those left out that were given up while they waited."""
        requests: list[_Request] = []
        tasks = size = 0
        while self._waiting and (not requests or self._waiting[0].fits(tasks, size)):
            request = self._waiting.popleft()
            if not request.done.done():
                requests.append(request)
                tasks += len(request.tasks)
                size += request.size
        return requests

    async def _carry(self, requests: list[_Request]) -> None:
        tasks = [task for request in requests for task in request.tasks]
        failpoints.hit("api.before_send")
        try:
            refusal = await self._call(lambda actor, again: actor.enqueue.remote(tasks, again))
        except Exception as error:
            # Whatever it is, those who wait are told: nobody else will ever answer them.
            for request in requests:
                _settle(request, error)
            if not isinstance(error, QueueUnavailable):
                raise
            return
        failpoints.hit("api.after_commit")
        for request in requests:
            _settle(request, None if refusal is None or not refusal.concerns(request.tasks) else refusal.error())

    async def _call(self, send: Callable[[Any, bool], Awaitable[Any]]) -> Any:
        """Call until there is an answer or the time is over; `again` is True from the second try on."""
        again, wait_s, cause = False, _FIRST_RETRY_S, "it is not there"
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await send(await self._queue.get(), again)
                    except ActorDiedError:
                        cause = "it died"
                        self._queue.forget()
                    except (RayError, ValueError) as error:
                        cause = type(error).__name__
                    again = True
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LAST_RETRY_S)
        except TimeoutError:
            raise QueueUnavailable(f"no answer within {self._timeout_s:g} s: {cause}") from None


def _settle(request: _Request, error: Exception | None) -> None:
    if request.done.done():
        return
    if error is None:
        request.done.set_result(None)
    else:
        request.done.set_exception(error)
