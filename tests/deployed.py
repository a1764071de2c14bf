"""A system of a test's own on the Ray of the run: actors in a namespace, tasks in a database."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from uuid import UUID

import ray
from ray.exceptions import RayError

from asyncproc.actors.answers import Cancelled, Health
from asyncproc.actors.changes import ChangeOutcome
from asyncproc.actors.deployment import QUEUE_NAME, WORKER_PREFIX, Deployment, QueueHandle, deploy_queue
from asyncproc.actors.gateway import Gateway
from asyncproc.actors.once import Keyed
from asyncproc.changes import Change
from asyncproc.clock import TaskIds, id_text
from asyncproc.config import Settings
from asyncproc.core.asked import NO_CHANGE, Action
from asyncproc.core.asked import Change as TaskChange
from asyncproc.core.record import Order, Progress, TaskFilter, TaskRecord
from asyncproc.core.states import FINAL, State
from asyncproc.core.task import NO_TERMS, NewTask, TaskId
from asyncproc.core.unique import Wish
from asyncproc.pool_precedence import pools_of
from asyncproc.registry import from_settings
from asyncproc.rules import Stored
from asyncproc.storage import operations
from asyncproc.storage.inspector import Inspector
from tests.eventually import eventually

R = TypeVar("R")

_ALL = 1_000_000


def settings_of(database: str, namespace: str, **sections: Any) -> Settings:
    """The sections as the YAML file would have them, on top of what parts one test from another."""
    values: dict[str, Any] = {"tasks": ["sample_tasks"], "api": {"enqueueTimeout": "60s"}, **sections}
    values["storage"] = {**values.get("storage", {}), "url": database}
    values["ray"] = {"namespace": namespace}
    return Settings.model_validate(values)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a task of `sample_tasks` leaves behind when it begins."""

    n: int
    attempt: int
    worker: str
    pid: int


class Ledger:
    """Who ran, in the order of the beginnings; written by the tasks themselves, read by nothing of ours."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def traces(self) -> list[Trace]:
        try:
            text = Path(self.path).read_text()
        except FileNotFoundError:
            return []
        # A line that is just being written is not read.
        return [Trace(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]

    def order(self) -> list[int]:
        return [trace.n for trace in self.traces()]

    def has_more_than(self, number: int) -> bool:
        return len(self.order()) > number

    def runs(self) -> Counter[int]:
        return Counter(self.order())


class System:
    """Called the way the REST API calls it; looked at through what the tables say."""

    def __init__(self, settings: Settings, start_dir: Path) -> None:
        self.settings = settings
        self.registry = from_settings(settings, start_dir)
        self.deployment = Deployment.of(settings, start_dir)
        self.namespace = settings.ray.namespace
        self._ids = TaskIds()
        # A loop that goes on between the calls of a test: the gateway may be retrying while a test kills.
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._inspector, self._gateway = self._run(self._connect)

    async def _connect(self) -> tuple[Inspector, Gateway]:
        inspector = Inspector(self.deployment.conninfo)
        await inspector.open()
        return inspector, Gateway(QueueHandle(self.namespace, self.deployment), self.settings.api.enqueue_timeout)

    def start(self) -> None:
        """Deploy, as a replica of the API does when it starts."""
        self._run(lambda: deploy_queue(self.deployment))

    def close(self) -> None:
        """Let go of what this process holds; the actors stay."""
        self._run(self._inspector.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, make: Callable[[], Awaitable[R]]) -> R:
        async def call() -> R:
            return await make()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    # ---- what clients do

    def make(self, type_name: str, *payloads: dict[str, Any], delay_s: float = 0.0, **options: Any) -> list[NewTask]:
        shared = self.registry.options_for(type_name, **options)
        return [
            (self._ids.make(), self.registry.validate(type_name, payload), shared, delay_s, NO_TERMS)
            for payload in payloads
        ]

    def send(self, tasks: Sequence[NewTask]) -> list[TaskId]:
        """Returns once they are committed."""
        self._run(lambda: self._gateway.enqueue(list(tasks)))
        return [task[0] for task in tasks]

    def enqueue(self, type_name: str, *payloads: dict[str, Any], **options: Any) -> list[TaskId]:
        return self.send(self.make(type_name, *payloads, **options))

    def start_once(self, key: str, tasks: Sequence[NewTask]) -> "Future[bytes]":
        """Send them with an idempotency key; as both answer and body serve their ids."""
        request = keyed(key, tasks)
        return asyncio.run_coroutine_threadsafe(self._gateway.enqueue_once(request), self._loop)

    def start_unique(self, tasks: Sequence[NewTask], wishes: Sequence[Wish | None]) -> "Future[bytes]":
        """Send tasks with their wishes; the answer names them as the API's does."""
        answer = json.dumps({"tasks": [{"id": id_text(task[0])} for task in tasks]}).encode()
        request = Keyed("", b"", answer, list(tasks), list(wishes))
        return asyncio.run_coroutine_threadsafe(self._gateway.enqueue_unique(request), self._loop)

    def cancel(self, task_id: TaskId, reason: str, grace_s: float = 60.0) -> Cancelled:
        return self._run(lambda: self._gateway.cancel(task_id, reason, grace_s))

    def retry(self, task_id: TaskId) -> bool:
        return self._run(lambda: self._gateway.retry(task_id))

    def change_task(self, task_id: TaskId, **change: Any) -> ChangeOutcome:
        return self._run(lambda: self._gateway.change_task(task_id, TaskChange(**change)))

    def order(
        self, action: Action, narrowed: TaskFilter, change: TaskChange = NO_CHANGE, rate: float | None = None
    ) -> bytes:
        """The id of an operation that is written down."""
        order = Order(self._ids.make(), action, narrowed, change, rate)
        self._run(lambda: self._gateway.order(order))
        return order.id

    def steer(self, change: Change) -> None:
        """Returns once it is in force."""
        self._run(lambda: self._gateway.change(change))

    def purge(self, queue: str) -> tuple[int, bool]:
        return self._run(lambda: self._gateway.purge(queue))

    # ---- what is seen

    def progress(self, operation_id: bytes) -> Progress:
        found = self._run(lambda: operations.one(self._inspector, operation_id))
        assert found is not None
        return found

    def errors(self, task_id: TaskId) -> list[dict[str, Any]]:
        return list(json.loads(self.task(task_id).errors))

    def task(self, task_id: TaskId) -> TaskRecord:
        record = self._run(lambda: self._inspector.task(task_id))
        assert record is not None, f"there is no task {UUID(bytes=task_id)}"
        return record

    def ended(self, task_id: TaskId) -> TaskRecord:
        """The task in its final state."""
        return eventually(lambda: record if (record := self.task(task_id)).state in FINAL else None)

    def tasks(self, **narrowed: Any) -> list[TaskRecord]:
        return self._run(lambda: self._inspector.tasks(TaskFilter(**narrowed), _ALL, None))

    def states(self) -> Counter[State]:
        return Counter(record.state for record in self.tasks())

    def queue(self) -> Any:
        return ray.get_actor(QUEUE_NAME, namespace=self.namespace)

    def health(self) -> Health:
        """What the QueueActor says; all bad where it says nothing."""
        try:
            return Health(*ray.get(self.queue().health.remote()))
        except (ValueError, RayError):
            return Health(False, "no answer", 0, 0)

    def is_whole(self, epoch: int) -> bool:
        """This reign has begun, and all workers answer to it."""
        health = self.health()
        wanted = sum(pool.least for pool in pools_of(self.settings, Stored()).values())
        return health.storage_ok and health.epoch >= epoch and health.workers >= wanted

    def workers(self) -> dict[str, Any]:
        """Handles of the WorkerActors by name."""
        found: dict[str, Any] = {}
        for name in _names(self.namespace):
            # One that dies between the list and the look-up is not there.
            with suppress(ValueError):
                if name.startswith(WORKER_PREFIX):
                    found[name.removeprefix(WORKER_PREFIX)] = ray.get_actor(name, namespace=self.namespace)
        return found

    def kill_queue(self) -> None:
        """SIGKILL for its process, which Ray starts anew."""
        os.kill(pid_of(self.queue()), signal.SIGKILL)


def keyed(key: str, tasks: Sequence[NewTask], body: bytes = b"the body") -> Keyed:
    return Keyed(key, body, json.dumps([task[0].hex() for task in tasks]).encode(), list(tasks))


def pid_of(actor: Any) -> int:
    def ask(_: object) -> int:
        return os.getpid()

    return int(ray.get(actor.__ray_call__.remote(ask)))


@contextmanager
def deployed(settings: Settings, start_dir: Path) -> Iterator[System]:
    """A system whose workers answer, and that leaves nothing behind."""
    system = System(settings, start_dir)
    try:
        system.start()
        eventually(lambda: system.is_whole(epoch=1))
        yield system
    finally:
        remove_actors(system.namespace)
        system.close()


def remove_actors(namespace: str) -> None:
    """End every actor of a namespace, the QueueActor first: it would start workers anew."""

    def nothing_left() -> bool:
        names = sorted(_names(namespace), key=lambda name: name != QUEUE_NAME)
        for name in names:
            try:
                ray.kill(ray.get_actor(name, namespace=namespace), no_restart=True)
            except ValueError:
                continue
        return not names

    eventually(nothing_left)


def _names(namespace: str) -> list[str]:
    entries = ray.util.list_named_actors(all_namespaces=True)
    return [str(entry["name"]) for entry in entries if entry["namespace"] == namespace]
