"""What adapters of Ray Serve ask of the QueueActor: they have neither task modules nor a database."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from pydantic_core import to_json

from asyncproc.actors.answers import Refusal
from asyncproc.actors.deployment import Deployment
from asyncproc.actors.requests import Declared
from asyncproc.actors.steering import Steering
from asyncproc.changes import Put
from asyncproc.config import DEFAULT, Settings, StorageSettings
from asyncproc.core.record import TaskRecord
from asyncproc.core.states import State
from asyncproc.core.task import NO_TERMS, NewTask, TaskId
from asyncproc.errors import SettingsRefused, TasksRejected
from asyncproc.pool_precedence import pool_settings, pools_of
from asyncproc.pool_settings import MAX_HANDLERS, HandlerSettings
from asyncproc.rules import Stored
from asyncproc.storage.inspector import Inspector

MOST_COUNTED: Final = 100_000


class Wishes(NamedTuple):
    """What one task asks for itself; None leaves it to others."""

    priority: int | None = None
    delay_s: float = 0.0
    timeout_s: float | None = None
    soft_timeout_s: float | None = None
    concurrency_key: str | None = None
    fairness_key: str | None = None
    created_by: str | None = None


class Call(NamedTuple):
    """A task that is to be made."""

    id: TaskId
    handler: str
    payload: bytes
    queue: str
    retries: int | None
    """Where nobody has brought the handler along yet."""
    wishes: Wishes


class Enqueue(NamedTuple):
    """Answered with None once all of them are committed, or a `Refusal`."""

    calls: list[Call]
    again: bool


class Host(NamedTuple):
    """Have the tasks of these handlers taken by whoever asks: their names, and how often each is tried again. Answered
    with `Hosted`."""

    queue: str
    handlers: Mapping[str, int | None]


class Hosted(NamedTuple):
    pool: str
    """In which to register."""
    settings: Settings


class LookAt(NamedTuple):
    """Answered with a `TaskRecord`, or None where there is no such task."""

    id: TaskId


class Count(NamedTuple):
    """Answered with the tasks of the queue that have not ended, by state; None where they are too many to count."""

    queue: str


Asked: TypeAlias = Enqueue | Host | LookAt | Count
Answer: TypeAlias = Hosted | TaskRecord | dict[State, int] | None


class Served:
    def __init__(
        self,
        deployment: Deployment,
        steering: Steering,
        enqueue: Callable[[list[NewTask], bool, Sequence[int]], Awaitable[Refusal | None]],
    ) -> None:
        self._settings = deployment.settings
        self._types = deployment.types
        self._steering = steering
        self._enqueue = enqueue
        self._registry = Declared(deployment.types, deployment.settings)
        # Of its own: whoever looks must not hold up those who enqueue.
        self._inspector = Inspector(deployment.conninfo, 1)
        self._hosting = asyncio.Lock()

    async def answer(self, asked: Asked) -> Answer | Refusal:
        """Raises `SettingsRefused`, `TasksRejected` and `StorageUnavailable`."""
        match asked:
            case Enqueue(calls, again):
                return await self._enqueue([self._task(call) for call in calls], again, [1] * len(calls))
            case Host(queue, handlers):
                async with self._hosting:
                    return await self._host(queue, handlers)
            case LookAt(task_id):
                return await (await self._reader()).task(task_id)
            case Count(queue):
                return await (await self._reader()).some_counts(queue, MOST_COUNTED)

    async def _reader(self) -> Inspector:
        await self._inspector.open()  # which changes nothing where it is
        return self._inspector

    async def _host(self, queue: str, handlers: Mapping[str, int | None]) -> Hosted:
        taken = sorted(handlers.keys() & self._types.keys())
        if taken:
            raise SettingsRefused(
                "invalid", f"the WorkerActors have task types called {', '.join(taken)}: give the handlers other names"
            )
        stored, rules = self._steering.stored, self._steering.rules
        pools = pools_of(self._settings, stored)
        named = rules.queue(queue).pool or rules.pool_of.get(queue)
        pool = named or queue
        if pool in pools and (pools[pool].most or named is None):
            raise SettingsRefused("invalid", _taken(queue, pool, served=named is not None))
        known = {name: own.max_task_retry for name, own in (self._handlers(stored, pool) or {}).items()}
        wanted = {**known, **handlers}
        if len(wanted) > MAX_HANDLERS:
            raise SettingsRefused("full", f"pool {pool} has {len(known)} handlers: at most {MAX_HANDLERS} are kept")
        if pool not in pools or wanted != known:
            document: dict[str, object] = {"handlers": {name: {"maxTaskRetry": wanted[name]} for name in wanted}}
            if pool not in pools:
                document |= {"queues": [queue], "workers": 0}
            await self._steering.change(Put("pool", pool, to_json(document), "merge"))
        # They need no way into a database or a mailbox, and get none.
        return Hosted(pool, self._settings.model_copy(update={"storage": StorageSettings(), "smtp": None}))

    def _handlers(self, stored: Stored, pool: str) -> Mapping[str, HandlerSettings] | None:
        handlers: Mapping[str, HandlerSettings] | None = pool_settings(self._settings, stored, pool)["handlers"].value
        return handlers

    def _task(self, call: Call) -> NewTask:
        most = self._settings.api.max_task_bytes
        if len(call.payload) > most:
            raise TasksRejected({call.id: f"its arguments are {len(call.payload)} bytes: at most {most} are allowed"})
        self._registry.obey(self._steering.stored)
        wishes = call.wishes
        options = self._registry.options_for(
            call.handler,
            queue=call.queue,
            priority=wishes.priority,
            timeout_s=wishes.timeout_s,
            soft_timeout_s=wishes.soft_timeout_s,
            created_by=wishes.created_by or "",
            concurrency_key=wishes.concurrency_key,
            fairness_key=wishes.fairness_key,
        )
        if call.retries is not None and not self._registry.knows(call.handler):
            options = options._replace(retry=options.retry._replace(max_attempts=call.retries + 1))
        return (call.id, call.payload, options, wishes.delay_s, NO_TERMS)


def _taken(queue: str, pool: str, *, served: bool) -> str:
    if served or pool == DEFAULT:
        return (
            f"queue {queue} is served by the WorkerActors of pool {pool}, which know no handlers: give the deployment a"
            " queue of its own (queue_name)"
        )
    return (
        f"there is a pool {queue} that does not serve queue {queue}: give the deployment another queue_name, or name"
        f" the queue under pools.{queue}.queues and set its workers to 0"
    )
