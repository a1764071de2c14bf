"""What callers enqueued inside transactions of their own becomes tasks, each once.

Rows are read after their commit and deleted in the commit that makes tasks of them, so that a crash at any point leaves
either the one or the other. Where the fate of a commit is unknown nothing is read before it is certain: until then a
row may stand for a task that is there already, and has ended.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from asyncproc.actors.deployment import Deployment
from asyncproc.actors.inbox import Inbox
from asyncproc.actors.steering import Steering
from asyncproc.config import DEFAULT
from asyncproc.core.events import Enqueued
from asyncproc.core.task import NO_TERMS, NewTask, OnParentFailure, Options, Parents, TaskId, Terms
from asyncproc.errors import AsyncprocError, EpochLost, TasksRejected
from asyncproc.processable import Processable
from asyncproc.registry import Registry, TaskType
from asyncproc.rules import Stored
from asyncproc.storage import requests
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.requests import Bell, Request

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""How long a request waits at most whose notification is lost."""
AT_ONCE: Final = 2_000
BYTES_AT_ONCE: Final = 16 * 1024 * 1024
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0


class Declared(Registry):
    """Types by what their code says of them: the code itself is never imported here."""

    def get(self, name: str) -> TaskType:
        """One that is no more since it was asked for is as good as any: its task fails, and says why."""
        return self._types.get(name) or self._served.get(name) or TaskType(Processable, DEFAULT)

    def knows(self, name: str) -> bool:
        return name in self._types or name in self._served


class Requests:
    def __init__(
        self,
        deployment: Deployment,
        storage: Storage,
        inspector: Inspector,
        inbox: Inbox,
        steering: Steering,
    ) -> None:
        self._queues: dict[str, str] = {}
        """Of the types that can be asked for."""
        self._max_payload_bytes = deployment.settings.api.max_task_bytes
        self._registry = Declared(deployment.types, deployment.settings)
        self._storage = storage
        self._inspector = inspector
        self._inbox = inbox
        self._steering = steering
        self._known_by: Stored | None = None
        self._bell = Bell(deployment.conninfo)

    async def listen(self) -> None:
        """For as long as the reign lasts."""
        await self._bell.listen()

    async def run(self) -> None:
        """For as long as the reign lasts. Raises `EpochLost`; all else is tried again."""
        wait_s, said = _FIRST_RETRY_S, ""
        while True:
            try:
                # What the last reign or the last attempt left in doubt is certain after this.
                await self._inbox.flush()
                while True:
                    await self._know_types()
                    await self._drain()
                    wait_s, said = _FIRST_RETRY_S, ""
                    await self._bell.wait(POLL_S)
            except EpochLost:
                raise
            except AsyncprocError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("requests of other transactions wait: %s", said)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LAST_RETRY_S)

    async def _know_types(self) -> None:
        """Pools may bring new ones along while the reign lasts."""
        if (stored := self._steering.stored) is self._known_by:
            return
        self._registry.obey(stored)
        queues = {name: self._registry.get(name).queue for name in self._registry.names()}
        if queues != self._queues:
            await self._storage.between(requests.know_types, queues, self._max_payload_bytes)
            self._queues = queues
        self._known_by = stored

    async def _drain(self) -> None:
        while found := await requests.waiting(self._inspector, AT_ONCE, BYTES_AT_ONCE):
            tasks = self._tasks(found)
            try:
                await self._inbox.ask(partial(Enqueued, tasks=tasks, requested=True))
            except TasksRejected as error:
                await self._put_aside(error.causes)

    async def _put_aside(self, causes: Mapping[TaskId, str]) -> None:
        for task_id, cause in causes.items():
            log.error("request %s cannot be kept as a task: %s", task_id.hex(), cause)
        await self._storage.between(requests.refuse, causes)

    def _tasks(self, found: list[Request]) -> list[NewTask]:
        self._registry.obey(self._steering.stored)
        shared: dict[tuple[object, ...], Options] = {}
        return [
            (
                request.id,
                request.payload,
                self._options(request, shared),
                0.0,
                _terms(request) if any(request[13:]) else NO_TERMS,
            )
            for request in found
        ]

    def _options(self, request: Request, shared: dict[tuple[object, ...], Options]) -> Options:
        asked = request[2:13]
        options = shared.get(asked)
        if options is None:
            options = shared[asked] = self._registry.options_for(
                request.type,
                queue=request.queue,
                priority=request.priority,
                backoff_s=request.backoff_s,
                timeout_s=request.timeout_s,
                soft_timeout_s=request.soft_timeout_s,
                concurrency_key=request.concurrency_key or None,
                fairness_key=request.fairness_key or None,
                created_by=request.created_by,
                affinity_key=request.affinity_key,
                resources=request.resources,
            )
        return options


def _terms(request: Request) -> Terms:
    parents = None
    if request.depends_on:
        ids = tuple(dict.fromkeys(parent.bytes for parent in request.depends_on))
        parents = Parents(ids, OnParentFailure(request.on_parent_failure or OnParentFailure.FAIL))
    return Terms(request.start_by, request.deadline, run_at=request.ready_at, parents=parents)
