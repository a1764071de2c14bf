"""The process that runs tasks."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

import ray

from asyncproc.actors.cell_process import Order, make_executor
from asyncproc.actors.cells import Cells
from asyncproc.actors.conversation import Conversation
from asyncproc.actors.deployment import QueueHandle
from asyncproc.actors.garbage import spare_what_stays
from asyncproc.actors.parents import QueueParents
from asyncproc.actors.slots import Slots
from asyncproc.actors.task_log import TaskLog
from asyncproc.actors.wear import Wear
from asyncproc.config import Settings
from asyncproc.core.events import Outcome
from asyncproc.pool_settings import PoolSettings
from asyncproc.registry import from_settings
from asyncproc.tasks.generate_report import Row

log = logging.getLogger(__name__)

_FIGURES_TIMEOUT_S: Final = 10.0
DEPARTURE_S: Final = 60.0
"""How long a process that must end waits for what it holds to be recorded, rather than have it run again."""


class QueueFigures:
    """Figures by way of the QueueActor: a worker has no database."""

    def __init__(self, queue: QueueHandle) -> None:
        self._queue = queue

    async def read(self) -> list[Row]:
        actor = await self._queue.get()
        rows: list[Row] = await asyncio.wait_for(actor.figures.remote(), _FIGURES_TIMEOUT_S)
        return rows


class WorkerActor:
    """One incarnation of a worker: user code runs in its slots, the conversation with the QueueActor on its loop."""

    def __init__(self, name: str, pool: str, kind: PoolSettings, settings: Settings, start_dir: str) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
        os.environ.update(kind.environment)
        self._name = name
        self._shown = f"WorkerActor({name.rpartition('.')[0]})"
        self._settings = settings
        self._start_dir = Path(start_dir)
        self._pool = kind
        self._queue = QueueHandle(settings.ray.namespace)
        queue = settings.queue
        self._conversation = Conversation(
            self._queue, name, pool, self._pool.concurrency, queue.poll, queue.longest_poll
        )
        self._slots: Slots | None = None
        self._imported = asyncio.Event()
        self._task_log = TaskLog(log)
        self._loop = asyncio.get_running_loop()
        self._departures: list[asyncio.Task[None]] = []
        self._wear = Wear(self._pool.recycle_after, self._pool.recycle_above)
        self._life = self._loop.create_task(self._live())
        self._life.add_done_callback(_end_process)

    def __repr__(self) -> str:
        return self._shown

    async def sentinel(self) -> None:
        """Never returns: that the call fails tells of the process' death within milliseconds."""
        await asyncio.Event().wait()

    async def ready(self) -> str:
        """The node it is on, once the task modules are imported."""
        await self._imported.wait()
        return str(ray.get_runtime_context().get_node_id())

    async def leave(self, why: str) -> None:
        """End, after all that runs has come to its own end; whoever keeps the place fills it anew."""
        self._depart(why, True)

    async def drain(self, grace_s: float) -> int:
        """Finish what runs within `grace_s`, hand the rest back; returns how many tasks still run then."""
        if self._slots is None:
            return 0
        left = await self._conversation.drain(self._slots, grace_s)
        await self._tear_down(self._slots)
        return left

    async def _tear_down(self, slots: Slots) -> None:
        await asyncio.to_thread(slots.tear_down, self._settings.queue.teardown)

    async def _live(self) -> None:
        settings = self._settings
        # Off the loop: a task module may take long to import, and Ray would take the actor for stuck.
        registry = await asyncio.to_thread(from_settings, settings, self._start_dir)
        figures = QueueFigures(self._queue)
        parents = QueueParents(self._queue)
        executor = make_executor(settings, registry, self._name, figures, parents)
        self._conversation.attend(executor.notebook)
        order = Order(settings, str(self._start_dir), self._name)
        cells = Cells(order, figures, parents, self._loop, executor.notebook)
        most_s = settings.queue.max_extended
        slots = Slots(executor, self._pool.concurrency, self._ended, self._overdue, cells, most_s)
        self._slots = slots
        self._conversation.types = tuple(registry.names())
        self._conversation.batching = executor.batching
        spare_what_stays()
        self._imported.set()
        await self._conversation.run(slots)

    def _ended(self, outcome: Outcome) -> None:
        self._conversation.ended(outcome, self._slots is None or self._slots.is_idle())
        self._task_log.note(outcome)
        if worn := self._wear.after_one_more():
            self._loop.call_soon_threadsafe(self._depart, worn, True)

    def _overdue(self, outcome: Outcome) -> None:
        """The code of the task cannot be stopped, but its process can."""
        self._conversation.ended(outcome, True)
        self._task_log.note(outcome)
        self._loop.call_soon_threadsafe(self._depart, outcome[4], False)

    def _depart(self, why: str, finishes: bool) -> None:
        log.warning("%s ends%s: %s", self._name, " after what it runs" if finishes else "", why)
        departure = self._loop.create_task(self._leave(finishes))
        departure.add_done_callback(lambda _: os._exit(0))
        self._departures.append(departure)

    async def _leave(self, finishes: bool) -> None:
        if self._slots is None:
            return
        self._conversation.leave(self._slots)
        # What runs has the time that its own limits give it. Without a QueueActor nothing is recorded, while the code
        # goes on that ought to be stopped.
        async with asyncio.timeout(None if finishes else DEPARTURE_S):
            await self._conversation.gone(all_ended=finishes)
        await self._tear_down(self._slots)


def _end_process(life: "asyncio.Task[None]") -> None:
    """A worker that cannot work ends, which is seen and mended; the log says why."""
    if not life.cancelled():
        log.error("the worker ends: %s", life.exception(), exc_info=life.exception())
        os._exit(1)
