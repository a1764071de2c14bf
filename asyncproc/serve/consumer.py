"""A worker in somebody else's process: a replica of Ray Serve takes tasks as a WorkerActor does."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final, NamedTuple

import ray

from asyncproc.actors.cell_process import make_executor
from asyncproc.actors.conversation import Conversation
from asyncproc.actors.deployment import QueueHandle
from asyncproc.actors.guests import guest_name
from asyncproc.actors.parents import QueueParents
from asyncproc.actors.served import Hosted
from asyncproc.actors.slots import Slots
from asyncproc.actors.task_log import TaskLog
from asyncproc.actors.worker_actor import DEPARTURE_S, QueueFigures
from asyncproc.core.events import Outcome
from asyncproc.handlers import handler_type
from asyncproc.registry import Registry, TaskType

log = logging.getLogger("ray.serve")
_CODE_BYTES: Final = 2
_NAMESPACE: Final = "serve"
"""Where Ray Serve keeps its actors."""


class NotInAReplica(RuntimeError):
    """Tasks are taken only where Ray can tell of the end of the process."""

    def __str__(self) -> str:
        return "tasks can be consumed in a replica of Ray Serve alone: this process is none"


class _Witness(NamedTuple):
    actor: Any
    reference: Any
    answer: Future[Any]


class Consumer:
    """Made on the loop on which it talks to the QueueActor; handlers run in threads and, the async ones, on a loop of
    their own."""

    def __init__(
        self, queue: QueueHandle, hosted: Hosted, queue_name: str, handlers: Mapping[str, Callable[..., Any]], most: int
    ) -> None:
        """At most so many tasks at once. Raises `NotInAReplica`."""
        self.name = _name()
        self._witness: _Witness | None = None
        settings = hosted.settings
        types = {name: TaskType(handler_type(name, handler), queue_name) for name, handler in handlers.items()}
        registry = Registry(types, settings)
        executor = make_executor(settings, registry, self.name, QueueFigures(queue), QueueParents(queue))
        self._conversation = Conversation(queue, self.name, hosted.pool, most, settings.queue.poll)
        self._conversation.types = tuple(handlers)
        self._conversation.vouch = self._vouch
        self._conversation.attend(executor.notebook)
        # A handler is bound to the state of this process: no other one can run it.
        self._slots = Slots(executor, most, self._ended, self._overdue, None, settings.queue.max_extended)
        self._task_log = TaskLog(log)
        self._loop = asyncio.get_running_loop()
        self._departure: asyncio.Task[None] | None = None
        self._life = self._loop.create_task(self._conversation.run(self._slots))
        self._life.add_done_callback(_end_process)

    async def leave(self, within_s: float) -> bool:
        """Take nothing more, hand back what has not begun, finish what runs; whether all of it was in time."""
        self._conversation.leave(self._slots)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._conversation.gone(all_ended=True)
                self._life.cancel()
                return True
        return False

    def _vouch(self, actor: Any) -> list[Any]:
        """A call that does not end while both live: asked for anew where it has, or where another one reigns."""
        before = self._witness
        if before is None or before.actor is not actor or before.answer.done():
            reference = actor.witness.remote(self.name)
            self._witness = before = _Witness(actor, reference, reference.future())
        return [before.reference]

    def _ended(self, outcome: Outcome) -> None:
        self._conversation.ended(outcome, self._slots.is_idle())
        self._task_log.note(outcome)

    def _overdue(self, outcome: Outcome) -> None:
        """The code of the task cannot be stopped, but its process can; Serve starts another replica."""
        self._conversation.ended(outcome, True)
        self._task_log.note(outcome)
        self._loop.call_soon_threadsafe(self._depart, outcome[4])

    def _depart(self, why: str) -> None:
        log.warning("%s ends: %s", self.name, why)
        self._departure = self._loop.create_task(self._go())
        self._departure.add_done_callback(lambda _: os._exit(1))

    async def _go(self) -> None:
        self._conversation.leave(self._slots)
        async with asyncio.timeout(DEPARTURE_S):
            await self._conversation.gone(all_ended=False)


def _name() -> str:
    context = ray.get_runtime_context()
    actor = context.get_actor_name() if context.get_actor_id() else ""
    try:
        # Under this name it must be found by whoever watches it.
        found = ray.get_actor(actor or "", namespace=_NAMESPACE)
    except ValueError:
        raise NotInAReplica from None
    if found._actor_id.hex() != context.get_actor_id():
        raise NotInAReplica
    return guest_name(_NAMESPACE, actor or "", token_hex(_CODE_BYTES))


def _end_process(life: "asyncio.Task[None]") -> None:
    """A replica that cannot take tasks ends, which Serve sees and mends; the log says why."""
    if not life.cancelled():
        log.error("the replica ends: %s", life.exception(), exc_info=life.exception())
        os._exit(1)
