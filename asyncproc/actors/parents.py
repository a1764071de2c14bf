"""A worker's way to the results of the tasks that one of its own depended on."""

import asyncio
from typing import Final
from uuid import UUID

from ray.exceptions import ActorDiedError, RayError

from asyncproc.actors.answers import Refusal
from asyncproc.actors.deployment import QueueHandle
from asyncproc.clock import monotonic
from asyncproc.parents import Chunk, ParentsUnread

ANSWER_S: Final = 10.0
AWAY_S: Final = 60.0
"""How long a task waits for a QueueActor or a Postgres that is away, before its attempt fails."""
_RETRY_S: Final = 0.2


class QueueParents:
    """By way of the QueueActor: a worker has no database. May be called on any loop."""

    def __init__(self, queue: QueueHandle) -> None:
        self._queue = queue

    async def read(self, task_id: str, start: int) -> Chunk:
        """Raises `ParentsUnread`."""
        known, until = UUID(task_id).bytes, monotonic() + AWAY_S
        while True:
            try:
                actor = await self._queue.get()
                answer: Chunk | Refusal = await asyncio.wait_for(actor.parents.remote(known, start), ANSWER_S)
                if not isinstance(answer, Refusal):
                    return answer
                cause = answer.text
            except ActorDiedError:
                self._queue.forget()
                cause = "the QueueActor died"
            except (RayError, TimeoutError, ValueError) as error:
                cause = f"the QueueActor does not answer: {type(error).__name__}"
            if monotonic() > until:
                raise ParentsUnread(cause)
            await asyncio.sleep(_RETRY_S)
