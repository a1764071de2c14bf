"""WorkerActors started, watched and replaced. One task a place; a place is a number in a pool."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asyncproc import failpoints
from asyncproc.actors.deployment import WORKER_PREFIX, Deployment
from asyncproc.actors.spread import LEVEL_S, Spread
from asyncproc.actors.worker_actor import WorkerActor
from asyncproc.config import PoolSettings, StorageSettings
from asyncproc.core.events import WorkerLost

log = logging.getLogger(__name__)

LAST_BACKOFF_S: Final = 30.0
READY_S: Final = 60.0
KILL_MARGIN_S: Final = 5.0
_CALLS: Final = 100


@dataclass(frozen=True, slots=True)
class Worker:
    """A running incarnation: `pool-number.code`, where the code begins with the fingerprint of what it runs."""

    name: str
    handle: Any

    @property
    def place(self) -> str:
        return self.name.partition(".")[0]


class Pools:
    """The workers of one deployment. `lost` is told of each one that died, and whether it died on its own."""

    def __init__(self, deployment: Deployment, lost: Callable[[WorkerLost], None]) -> None:
        self._deployment = deployment
        self._lost = lost
        self._workers: dict[str, Worker] = {}
        self._replacing = asyncio.Lock()
        self._stopping = False
        self._spread = Spread()

    async def find(self) -> set[str]:
        """Names of the workers that Ray knows to be alive from an earlier reign."""
        found = await asyncio.to_thread(self._survivors)
        self._workers = {worker.name: worker for worker in found}
        return set(self._workers)

    async def run(self) -> None:
        """Keep every place filled until cancelled; ends with an error only where this code is wrong."""
        survivors = list(self._workers.values())
        async with asyncio.TaskGroup() as group:
            for pool, settings in self._deployment.settings.all_pools().items():
                for number in range(1, settings.workers + 1):
                    place = f"{pool}-{number}"
                    heir = next((worker for worker in survivors if worker.place == place), None)
                    if heir is not None:
                        survivors.remove(heir)
                    group.create_task(self._keep(place, pool, settings, heir))
            for worker in survivors:
                # The configuration no longer has its place.
                group.create_task(self._end(worker, self._deployment.settings.queue.drain))
            group.create_task(self._level())
            # Without a place to keep it would be over at once, which the QueueActor takes for a failure.
            await asyncio.Event().wait()

    async def drain(self, grace_s: float) -> None:
        """End all workers; what still runs after the grace is handed back uncharged."""
        self._stopping = True
        async with asyncio.TaskGroup() as group:
            for worker in list(self._workers.values()):
                group.create_task(self._end(worker, grace_s))

    async def _keep(self, place: str, pool: str, settings: PoolSettings, worker: Worker | None) -> None:
        failures = 0
        if worker is not None and not self._is_current(worker):
            worker = await self._replace(worker, place, pool, settings)
        while not self._stopping:
            if worker is None:
                worker = await self._start(place, pool, settings)
            was_ready = asyncio.ensure_future(self._is_ready(worker))
            cause = await self._watch(worker)
            self._gone(worker, cause, charged=True)
            worker = None
            # One that came as far as to import its tasks did not fail at its start, whatever a task did to it then.
            failures = 0 if await was_ready else failures + 1
            if failures > 1:
                await asyncio.sleep(min(0.1 * 2.0 ** min(failures, 20), LAST_BACKOFF_S))

    def _is_current(self, worker: Worker) -> bool:
        return worker.name.partition(".")[2].startswith(self._deployment.fingerprint)

    async def _replace(self, old: Worker, place: str, pool: str, settings: PoolSettings) -> Worker:
        """New code comes up before old code goes, one place at a time."""
        async with self._replacing:
            new = await self._start(place, pool, settings)
            try:
                async with asyncio.timeout(READY_S):
                    await new.handle.ready.remote()
            except (RayError, TimeoutError) as error:
                log.warning("%s is not ready (%s); %s ends all the same", new.name, type(error).__name__, old.name)
            await self._end(old, self._deployment.settings.queue.drain)
        return new

    async def _end(self, worker: Worker, grace_s: float) -> None:
        try:
            async with asyncio.timeout(grace_s + self._deployment.settings.queue.teardown + KILL_MARGIN_S):
                left = await worker.handle.drain.remote(grace_s)
            log.info("%s is drained, %d tasks are handed back", worker.name, left)
        except (RayError, TimeoutError) as error:
            log.warning("%s did not drain: %s", worker.name, type(error).__name__)
        await asyncio.to_thread(ray.kill, worker.handle)
        self._gone(worker, "it was ended", charged=False)

    def _gone(self, worker: Worker, cause: str, *, charged: bool) -> None:
        """Tell of each worker once: whoever ends it and whoever watches it both see it go."""
        self._spread.gone(worker.name)
        if self._workers.pop(worker.name, None) is not None:
            log.info("worker %s is gone: %s", worker.name, cause)
            self._lost(WorkerLost(worker.name, cause, charged))

    async def _watch(self, worker: Worker) -> str:
        """Returns the cause once the process is dead. That it cannot be reached is no proof of that."""
        wait_s = 0.1
        while True:
            try:
                await worker.handle.sentinel.remote()
            except ActorDiedError as error:
                return _cause_of_death(error)
            except RayError as error:
                log.warning("%s cannot be reached: %s", worker.name, type(error).__name__)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)

    async def _start(self, place: str, pool: str, settings: PoolSettings) -> Worker:
        name = f"{place}.{self._deployment.fingerprint}{token_hex(2)}"
        node = self._spread.wanted(place)
        worker = Worker(name, await asyncio.to_thread(self._create, name, pool, settings, node))
        self._workers[name] = worker
        failpoints.hit("queue.after_worker_start")
        return worker

    async def _is_ready(self, worker: Worker) -> bool:
        """Whether it imported its tasks before it died; the answer comes with the one or the other."""
        try:
            node = await worker.handle.ready.remote()
        except RayError:
            return False
        if worker.name in self._workers:
            self._spread.is_on(worker.name, node)
        return True

    async def _level(self) -> None:
        """Move workers to nodes that joined later. Where they reserve something, Ray places them by what is free."""
        pools = self._deployment.settings.all_pools()
        free = [name for name, pool in pools.items() if not (pool.num_cpus or pool.num_gpus or pool.memory)]
        while not self._stopping:
            await asyncio.sleep(LEVEL_S)
            for name in await asyncio.to_thread(self._spread.moves, list(self._workers), free):
                worker = self._workers.get(name)
                if worker is None:
                    continue
                log.info("%s makes room for a worker on another node", name)
                try:
                    await worker.handle.leave.remote("another node has more room")
                except RayError as error:
                    log.warning("%s cannot be asked to leave: %s", name, type(error).__name__)

    def _create(self, name: str, pool: str, settings: PoolSettings, node: str | None) -> Any:
        deployment = self._deployment
        # Workers need no way into the database, and get none.
        handed = deployment.settings.model_copy(update={"storage": StorageSettings()})
        return (
            ray.remote(WorkerActor)
            .options(
                name=WORKER_PREFIX + name,
                namespace=deployment.namespace,
                lifetime="detached",
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=_CALLS,
                num_cpus=settings.num_cpus,
                num_gpus=settings.num_gpus,
                memory=settings.memory,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD",
                enable_task_events=False,
            )
            .remote(name, pool, handed, deployment.start_dir)
        )

    def _survivors(self) -> list[Worker]:
        found: list[Worker] = []
        for entry in ray.util.list_named_actors(all_namespaces=True):
            name = str(entry["name"])
            if entry["namespace"] != self._deployment.namespace or not name.startswith(WORKER_PREFIX):
                continue
            try:
                handle = ray.get_actor(name, namespace=self._deployment.namespace)
            except ValueError:
                continue  # It died between the list and the look-up.
            found.append(Worker(name.removeprefix(WORKER_PREFIX), handle))
        return found


def _cause_of_death(error: ActorDiedError) -> str:
    """What Ray knows of it, without its advice and the names of its own things."""
    first, *_ = text = str(error).strip().split("\n")
    details = (line.partition("Worker exit detail: ")[2].partition(" Some common causes")[0] for line in text)
    return f"its process was killed or crashed: {next(filter(None, details), first)}"[:300]
