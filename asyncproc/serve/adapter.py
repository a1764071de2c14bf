"""The adapter that Ray Serve's `TaskProcessorConfig` names. It needs neither Celery nor a broker."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import ray
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from ray.serve.schema import CeleryAdapterConfig, TaskProcessorAdapter, TaskProcessorConfig, TaskResult

from asyncproc.actors.answers import Cancelled
from asyncproc.actors.deployment import QueueHandle
from asyncproc.actors.served import Call, Host, Hosted, Wishes
from asyncproc.children import check_key, check_options, seconds
from asyncproc.clock import TaskIds, id_text, wall_now
from asyncproc.core.record import TaskRecord
from asyncproc.core.retry import MAX_ATTEMPTS
from asyncproc.core.states import State
from asyncproc.core.task import MAX_DELAY_S, MAX_TIMEOUT_S, MAX_TYPE_NAME
from asyncproc.errors import AsyncprocError, ConfigError
from asyncproc.handlers import payload_of
from asyncproc.serve.client import Client
from asyncproc.serve.consumer import Consumer
from asyncproc.serve.loop import Loop

log = logging.getLogger("ray.serve")

STATUS: Final = {
    State.BLOCKED: "PENDING",
    State.SCHEDULED: "PENDING",
    State.QUEUED: "PENDING",
    State.RUNNING: "STARTED",
    State.RETRYING: "RETRY",
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FAILURE",
    State.CANCELLED: "REVOKED",
}
"""In Celery's words, which code that was written for its adapter compares with."""
_DRAIN_S: Final = 10.0
_TIMEOUT_S: Final = 30.0


@dataclass(eq=False)
class TaskNotFound(AsyncprocError):
    """No task has this id."""

    task_id: str

    def __str__(self) -> str:
        return f"there is no task {self.task_id[:100]}"


class AsyncprocAdapterConfig(BaseModel):
    """All of it may be left out: the system is found on the Ray that the deployment runs on."""

    model_config = ConfigDict(extra="forbid")

    namespace: str = "asyncproc"
    """`ray.namespace` of the system."""
    timeout_s: float = Field(default=_TIMEOUT_S, gt=0, le=600)
    """How long a call waits for an answer."""
    drain_s: float = Field(default=_DRAIN_S, ge=0, le=86_400)
    """How long a replica that Serve ends may finish what it runs. `graceful_shutdown_timeout_s` of the deployment must
    be longer: Serve kills it then."""


class AsyncprocAdapter(TaskProcessorAdapter):
    """Tasks of a Serve deployment, kept and given out by asyncproc."""

    def __init__(self, config: TaskProcessorConfig, *args: Any, **kwargs: Any) -> None:
        """Raises `ConfigError`."""
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # Ray does not annotate it
        self._queue_name = config.queue_name
        self._retries = config.max_retries
        _check(config.queue_name, config.max_retries)
        said = _config_of(config.adapter_config)
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._concurrency = 1
        self._consumer: Consumer | None = None
        self._ids = TaskIds()
        self._drain_s = said.drain_s
        self._queue = QueueHandle(said.namespace)
        self._loop = Loop("asyncproc")
        self._client = Client(self._queue, said.timeout_s)
        for name in ("failed_task_queue_name", "unprocessable_task_queue_name"):
            if getattr(config, name) is not None:
                log.info("%s is not needed: dead letters are kept as failed tasks of %s", name, self._queue_name)

    def initialize(self, consumer_concurrency: int = 1) -> None:
        if not ray.is_initialized():
            raise RuntimeError("this process is not connected to Ray: call ray.init() first")
        self._concurrency = consumer_concurrency

    # ---- a consumer

    def register_task_handle(self, func: Callable[..., Any], name: str | None = None) -> None:
        """Raises `ValueError` for a name that no task type can have. `async def` is as good as `def`."""
        name = name or func.__name__
        if not name.isprintable() or len(name) > MAX_TYPE_NAME:
            raise ValueError(f"a handler is called {name!r:.300}: a name is {MAX_TYPE_NAME} characters at most")
        self._handlers[name] = func

    def start_consumer(self, **kwargs: Any) -> None:
        """Returns once the system knows of the handlers. Raises what `Client.host` and `Consumer` raise."""
        if self._consumer is None:
            hosted = self._loop.run(
                self._client.host(Host(self._queue_name, dict.fromkeys(self._handlers, self._retries)))
            )
            self._consumer = self._loop.run(self._consume(hosted))

    def stop_consumer(self, timeout: float | None = None) -> None:
        """Take nothing more, and wait for what runs, without a `timeout` for `drain_s`. What still runs then is run
        again elsewhere when this process has ended."""
        timeout = self._drain_s if timeout is None else timeout
        if (consumer := self._consumer) is None:
            return
        self._consumer = None
        try:
            # At the end of an interpreter there may be no loop any more.
            is_done = self._loop.run(consumer.leave(timeout), timeout + 1.0)
        except TimeoutError:
            is_done = False
        if not is_done:
            log.warning("tasks still run after %g s: they will run again elsewhere", timeout)

    def shutdown(self) -> None:
        self.stop_consumer()

    async def _consume(self, hosted: Hosted) -> Consumer:
        return Consumer(self._queue, hosted, self._queue_name, self._handlers, self._concurrency)

    # ---- whoever enqueues

    def enqueue_task_sync(
        self,
        task_name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TaskResult:
        """Returns once the task is committed.

        Options are `priority`, `delay`, `timeout` and `soft_timeout` (seconds or a timedelta), `concurrency_key`,
        `fairness_key` and `created_by`. Raises `TypeError` and `ValueError` for what no task can have, and what
        `Gateway.enqueue` raises.
        """
        return self._loop.run(self._enqueue(self._call(task_name, args, kwargs, options)))

    async def enqueue_task_async(
        self,
        task_name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TaskResult:
        """The same without holding up the calling loop."""
        return await self._loop.await_(self._enqueue(self._call(task_name, args, kwargs, options)))

    def get_task_status_sync(self, task_id: str) -> TaskResult:
        """Raises `TaskNotFound`."""
        return self._loop.run(self._look(task_id))

    async def get_task_status_async(self, task_id: str) -> TaskResult:
        return await self._loop.await_(self._look(task_id))

    def cancel_task_sync(self, task_id: str) -> None:
        """A task that waits is cancelled when this returns; one that runs is asked to end, and after a minute its
        replica is ended. One that has ended stays as it is. Raises `TaskNotFound`."""
        self._loop.run(self._cancel(task_id))

    async def cancel_task_async(self, task_id: str) -> None:
        await self._loop.await_(self._cancel(task_id))

    def get_metrics_sync(self) -> dict[str, Any]:
        """Of the queue: its tasks that have not ended by state, and how many there are in all. None where they are too
        many to be counted at once."""
        return self._loop.run(self._metrics())

    async def get_metrics_async(self) -> dict[str, Any]:
        return await self._loop.await_(self._metrics())

    def health_check_sync(self) -> list[dict[str, Any]]:
        """One entry: whether the system takes and keeps tasks, and how many workers of all pools answer. Raises
        `QueueUnavailable` where nobody answers."""
        return self._loop.run(self._health())

    async def health_check_async(self) -> list[dict[str, Any]]:
        return await self._loop.await_(self._health())

    # ---- on the adapter's loop

    async def _enqueue(self, call: Call) -> TaskResult:
        created_at = wall_now()
        await self._client.enqueue(call)
        return TaskResult(id=id_text(call.id), status=STATUS[State.QUEUED], created_at=created_at, result=None)

    async def _look(self, task_id: str) -> TaskResult:
        record = await self._client.look(_id_of(task_id))
        if record is None:
            raise TaskNotFound(task_id)
        return TaskResult(
            id=task_id, status=STATUS[record.state], created_at=record.created_at, result=_result_of(record)
        )

    async def _cancel(self, task_id: str) -> None:
        known = _id_of(task_id)
        if await self._client.cancel(known) is Cancelled.GONE and await self._client.look(known) is None:
            raise TaskNotFound(task_id)

    async def _metrics(self) -> dict[str, Any]:
        counts = await self._client.count(self._queue_name)
        states = None if counts is None else {state.value: number for state, number in counts.items()}
        return {"queue": self._queue_name, "tasks": None if counts is None else sum(counts.values()), "states": states}

    async def _health(self) -> list[dict[str, Any]]:
        health = await self._client.health()
        said = {"ok": "pong"} if health.storage_ok else {"error": health.storage}
        return [{"QueueActor": {**said, "epoch": health.epoch, "workers": health.workers}}]

    def _call(
        self, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Call:
        payload = payload_of(args or (), kwargs or {})
        return Call(self._ids.make(), name, payload, self._queue_name, self._retries, _wishes(**options))


def _check(queue: str, retries: int | None) -> None:
    try:
        check_options(queue, None)
    except ValueError as error:
        raise ConfigError((f"queue_name: {error}",)) from None
    if retries is not None and not 0 <= retries < MAX_ATTEMPTS:
        raise ConfigError((f"max_retries is {retries}: it must be from 0 to {MAX_ATTEMPTS - 1}",))


def _config_of(given: Any) -> AsyncprocAdapterConfig:
    """What is there for Celery is passed over, so that nothing but the adapter's name need be changed."""
    if given is None:
        return AsyncprocAdapterConfig()
    if isinstance(given, CeleryAdapterConfig):
        log.info("adapter_config is Celery's: asyncproc needs no broker, and passes it over")
        return AsyncprocAdapterConfig()
    if isinstance(given, Mapping):
        return AsyncprocAdapterConfig.model_validate(dict(given))
    if isinstance(given, AsyncprocAdapterConfig):
        return given
    allowed = "an AsyncprocAdapterConfig, a dict of its fields or None"
    raise ConfigError((f"adapter_config is a {type(given).__name__}: it must be {allowed}",))


def _wishes(
    *,
    priority: int | None = None,
    delay: timedelta | float = 0.0,
    timeout: timedelta | float | None = None,
    soft_timeout: timedelta | float | None = None,
    concurrency_key: str | None = None,
    fairness_key: str | None = None,
    created_by: str | None = None,
) -> Wishes:
    check_options(None, priority)
    check_key("concurrency_key", concurrency_key)
    check_key("fairness_key", fairness_key)
    check_key("created_by", created_by)
    return Wishes(
        priority,
        seconds("delay", delay, MAX_DELAY_S),
        None if timeout is None else seconds("timeout", timeout, MAX_TIMEOUT_S),
        None if soft_timeout is None else seconds("soft_timeout", soft_timeout, MAX_TIMEOUT_S),
        concurrency_key,
        fairness_key,
        created_by,
    )


def _id_of(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise TaskNotFound(text) from None


def _result_of(record: TaskRecord) -> Any:
    """What the handler returned, or in words why there is nothing."""
    if record.state is State.SUCCEEDED:
        return None if record.result is None else from_json(record.result)
    return record.error if record.state in (State.FAILED, State.CANCELLED, State.RETRYING) else None
