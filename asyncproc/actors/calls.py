"""Calls to the QueueActor: repeated until there is an answer or the time is over, and no more open than may be."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from ray.exceptions import ActorDiedError, RayError

from asyncproc.actors.deployment import QueueHandle
from asyncproc.errors import QueueUnavailable

MAX_UNANSWERED: Final = 8
"""Calls of one kind that were given up and may still be carried out: Ray holds what they carry until it knows."""
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0

Send: TypeAlias = Callable[[Any, bool], Awaitable[Any]]
"""Is given the actor, and True from the second try on."""


class Calls:
    """Calls of one kind, with room of their own: those of another kind may be stuck."""

    def __init__(self, queue: QueueHandle) -> None:
        self._queue = queue
        self._unanswered: set[asyncio.Future[Any]] = set()

    async def call(self, send: Send, timeout_s: float, once: bool = False) -> Any:
        """Raises `QueueUnavailable`. `once`: a failure is not tried again."""
        if len(self._unanswered) >= MAX_UNANSWERED:
            raise QueueUnavailable(f"{MAX_UNANSWERED} calls are unanswered already")
        again, wait_s, cause = False, _FIRST_RETRY_S, "it is not there"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await self._answer(send(await self._queue.get(), again))
                    except ActorDiedError:
                        cause = "it died"
                        self._queue.forget()
                    except (RayError, ValueError) as error:
                        cause = type(error).__name__
                    if once:
                        raise QueueUnavailable(cause)
                    again = True
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LAST_RETRY_S)
        except TimeoutError:
            raise QueueUnavailable(f"no answer within {timeout_s:g} s: {cause}") from None

    async def _answer(self, sent: Awaitable[Any]) -> Any:
        call = asyncio.ensure_future(sent)
        try:
            return await asyncio.shield(call)
        finally:
            if not call.done():
                self._unanswered.add(call)
                call.add_done_callback(self._answered_late)

    def _answered_late(self, call: "asyncio.Future[Any]") -> None:
        self._unanswered.discard(call)
        if not call.cancelled():
            call.exception()  # nobody else asks for it
