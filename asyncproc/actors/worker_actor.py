"""The process that runs tasks."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from asyncproc.actors.conversation import Conversation
from asyncproc.actors.deployment import QueueHandle
from asyncproc.actors.slots import Slots
from asyncproc.actors.task_log import TaskLog
from asyncproc.config import Settings, SmtpSettings
from asyncproc.core.events import Outcome
from asyncproc.executor import Executor
from asyncproc.registry import from_settings
from asyncproc.tasks.generate_report import Figures, Row

log = logging.getLogger(__name__)

_FIGURES_TIMEOUT_S: Final = 10.0


class _QueueFigures:
    """Figures by way of the QueueActor: a worker has no database."""

    def __init__(self, queue: QueueHandle) -> None:
        self._queue = queue

    async def read(self) -> list[Row]:
        actor = await self._queue.get()
        rows: list[Row] = await asyncio.wait_for(actor.figures.remote(), _FIGURES_TIMEOUT_S)
        return rows


class WorkerActor:
    """One incarnation of a worker: user code runs in its slots, the conversation with the QueueActor on its loop."""

    def __init__(self, name: str, pool: str, concurrency: int, settings: Settings, start_dir: str) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
        self._name = name
        self._shown = f"WorkerActor({name.partition('.')[0]})"
        self._settings = settings
        self._start_dir = Path(start_dir)
        self._concurrency = concurrency
        self._queue = QueueHandle(settings.ray.namespace)
        self._conversation = Conversation(self._queue, name, pool, concurrency, settings.queue.poll)
        self._slots: Slots | None = None
        self._imported = asyncio.Event()
        self._task_log = TaskLog(log)
        self._life = asyncio.get_running_loop().create_task(self._live())
        self._life.add_done_callback(_end_process)

    def __repr__(self) -> str:
        return self._shown

    async def sentinel(self) -> None:
        """Never returns: that the call fails tells of the process' death within milliseconds."""
        await asyncio.Event().wait()

    async def ready(self) -> None:
        """Returns once the task modules are imported."""
        await self._imported.wait()

    async def drain(self, grace_s: float) -> int:
        """Finish what runs within `grace_s`, hand the rest back; returns how many tasks still run then."""
        return 0 if self._slots is None else await self._conversation.drain(self._slots, grace_s)

    async def _live(self) -> None:
        settings = self._settings
        # Off the loop: a task module may take long to import, and Ray would take the actor for stuck.
        registry = await asyncio.to_thread(from_settings, settings, self._start_dir)
        services: dict[type, object] = {Figures: Figures(_QueueFigures(self._queue))}
        if settings.smtp is not None:
            services[SmtpSettings] = settings.smtp
        api = settings.api
        executor = Executor(
            registry, self._name, settings.queue.max_result_bytes, api.max_task_bytes, api.max_body_bytes, services
        )
        slots = Slots(executor, self._concurrency, self._ended)
        self._slots = slots
        self._imported.set()
        await self._conversation.run(slots)

    def _ended(self, outcome: Outcome) -> None:
        self._conversation.ended(outcome, self._slots is None or self._slots.is_idle())
        self._task_log.note(outcome)


def _end_process(life: "asyncio.Task[None]") -> None:
    """A worker that cannot work ends, which is seen and mended; the log says why."""
    if not life.cancelled():
        log.error("the worker ends: %s", life.exception(), exc_info=life.exception())
        os._exit(1)
