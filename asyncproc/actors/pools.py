"""WorkerActors started, watched and replaced. One task a place; a place is a number in a pool."""

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from secrets import token_hex
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayError, RuntimeEnvSetupError

from asyncproc import failpoints
from asyncproc.actors.deployment import WORKER_PREFIX, Deployment
from asyncproc.actors.places import Place, Plan, Roll, Worker, to_give_up
from asyncproc.actors.spread import LEVEL_S, Spread
from asyncproc.actors.worker_options import CannotStart, make
from asyncproc.config import StorageSettings
from asyncproc.core.events import WorkerLost
from asyncproc.pool_settings import PoolSettings

log = logging.getLogger(__name__)

LAST_BACKOFF_S: Final = 30.0
READY_S: Final = 60.0
KILL_MARGIN_S: Final = 5.0
_RETRY_S: Final = 1.0


class Pools:
    """The workers of one deployment. `lost` is told of each one that died, and whether it died on its own."""

    def __init__(self, deployment: Deployment, lost: Callable[[WorkerLost], None]) -> None:
        self._deployment = deployment
        self._lost = lost
        self._workers: dict[str, Worker] = {}
        self._introduced: set[str] = set()
        """Workers that may have been given tasks."""
        self._refused: set[str] = set()
        """Workers that were not needed any more before they introduced themselves."""
        self.roll = Roll()
        self._plan: Plan = {}
        self._replacing = asyncio.Lock()
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._spread = Spread()

    async def find(self) -> set[str]:
        """Names of the workers that Ray knows to be alive from an earlier reign."""
        found = await asyncio.to_thread(self._survivors)
        self._workers = {worker.name: worker for worker in found}
        self._introduced = set(self._workers)
        return set(self._workers)

    async def run(self, plan: Plan, load: Callable[[str], int | None]) -> None:
        """Keep every place filled until cancelled; ends with an error only where this code is wrong."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for worker in self.roll.adopt(self._workers.values()):
                    group.create_task(self._end(worker, self._deployment.settings.queue.drain))
                for place in list(self.roll.places.values()):
                    if place.pool in plan:
                        group.create_task(self._keep(place, plan[place.pool].kind))
                    elif place.worker is not None:
                        # Nothing has its pool any more.
                        del self.roll.places[place.name]
                        group.create_task(self._end(place.worker, self._deployment.settings.queue.drain))
                self.arrange(plan, load)
                group.create_task(self._level())
                # Without a place to keep it would be over at once, which the QueueActor takes for a failure.
                await asyncio.Event().wait()
            finally:
                self._group = None

    def arrange(self, plan: Plan, load: Callable[[str], int | None]) -> None:
        """Have so many workers of each pool, of these kinds; what runs is never cut off. Pools that are not named go.

        `load` is how much a worker holds, None where it takes no tasks yet."""
        group = self._group
        if group is None or self._stopping:
            return
        self._plan = plan
        for pool, (kind, workers) in plan.items():
            kept, numbers = self.roll.kept(pool), count(1)
            for _ in range(workers - len(kept)):
                group.create_task(self._keep(self.roll.add(pool, numbers), kind))
            for place in to_give_up(kept, len(kept) - workers, load) if workers < len(kept) else ():
                self._give_up(place, group)
        codes = {pool: self._deployment.fingerprint + kind.fingerprint for pool, (kind, _) in plan.items()}
        for place in list(self.roll.places.values()):
            if place.given_up:
                continue
            if place.pool not in plan:
                self._give_up(place, group)
            elif self._is_stale(place, codes[place.pool]):
                self._renewals[place.name] = group.create_task(self._renew(place))

    def found(self) -> list[str]:
        """The pools of the workers that were there when the reign began, one entry each."""
        return [worker.place.rpartition("-")[0] for worker in self._workers.values()]

    def are_there(self) -> bool:
        """All workers have introduced themselves."""
        return self._workers.keys() <= self._introduced

    def introduce(self, name: str) -> bool:
        """A worker says that it is there: whether it is still wanted. Only from then on it may be given tasks."""
        self._introduced.add(name)  # it may be there before this process has the handle
        return name not in self._refused

    async def drain(self, grace_s: float) -> None:
        """End all workers; what still runs after the grace is handed back uncharged."""
        self._stopping = True
        async with asyncio.TaskGroup() as group:
            for worker in list(self._workers.values()):
                group.create_task(self._end(worker, grace_s))

    # ---- one place

    async def _keep(self, place: Place, kind: PoolSettings) -> None:
        failures = 0
        if place.worker is not None and not self._runs_this_code(place.worker):
            place.worker = await self._replace(place.worker, place, kind)
            if place.given_up:
                await self._dismiss(place.worker)
        while not self._stopping and not (place.given_up and place.worker is None):
            if place.worker is None:
                arranged = self._plan.get(place.pool)
                try:
                    place.worker = await self._start(place, kind if arranged is None else arranged.kind)
                except CannotStart as error:
                    failures += 1
                    self._note(place, f"Ray does not take it: {error}")
                    await _pause(failures)
                    continue
                if place.given_up:
                    await self._dismiss(place.worker)
            worker = place.worker
            was_ready = asyncio.ensure_future(self._is_ready(worker))
            cause = await self._watch(worker)
            self._gone(worker, cause, charged=True)
            place.worker, place.successor = place.successor, None
            # One that came as far as to import its tasks did not fail at its start, whatever a task did to it then.
            started = await was_ready
            self._note(place, "" if started else cause)
            failures = 0 if started else failures + 1
            if failures > 1 and place.worker is None and not place.given_up:
                await _pause(failures)
        if self.roll.places.get(place.name) is place:
            del self.roll.places[place.name]

    def _note(self, place: Place, trouble: str) -> None:
        if trouble and trouble != place.trouble:
            log.warning("%s does not start: %s", place.name, trouble)
        place.trouble = trouble

    def _give_up(self, place: Place, group: asyncio.TaskGroup) -> None:
        place.given_up = True
        for worker in (place.worker, place.successor):
            if worker is not None:
                group.create_task(self._dismiss(worker))

    async def _dismiss(self, worker: Worker) -> None:
        """Let it finish what it runs; one that was never given anything ends at once, wherever its start has come."""
        if worker.name not in self._introduced:
            self._refused.add(worker.name)
            await asyncio.to_thread(ray.kill, worker.handle)
            self._gone(worker, "it was not needed any more", charged=False)
            return
        while worker.name in self._workers:
            try:
                await worker.handle.leave.remote("it is not needed any more")
            except ActorDiedError:
                return
            except RayError as error:
                log.warning("%s cannot be told to leave: %s", worker.name, type(error).__name__)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _runs_this_code(self, worker: Worker) -> bool:
        return worker.code.startswith(self._deployment.fingerprint)

    def _is_stale(self, place: Place, code: str) -> bool:
        """Its worker is made otherwise than those of the pool are now."""
        if place.worker is None or place.successor is not None or place.name in self._renewals:
            return False
        return self._runs_this_code(place.worker) and not place.worker.code.startswith(code)

    async def _renew(self, place: Place) -> None:
        """The successor comes up before its predecessor leaves, which finishes what it runs; one place at a time."""
        try:
            async with self._replacing:
                old, arranged = place.worker, self._plan.get(place.pool)
                if old is None or arranged is None or place.given_up:
                    return
                try:
                    new = await self._start(place, arranged.kind)
                except CannotStart as error:
                    self._note(place, f"Ray does not take another in its place: {error}")
                    return
                await self._until_ready(new, old)
                if place.given_up or place.worker is not old:
                    # Somebody else has the place by now, or nobody is to have it.
                    await self._dismiss(new)
                    return
                place.successor = new
            await self._dismiss(old)
        finally:
            self._renewals.pop(place.name, None)

    async def _replace(self, old: Worker, place: Place, kind: PoolSettings) -> Worker:
        """New code comes up before old code goes, one place at a time."""
        async with self._replacing:
            try:
                new = await self._start(place, kind)
            except CannotStart as error:
                self._note(place, f"Ray does not take another in its place: {error}")
                return old
            await self._until_ready(new, old)
            await self._end(old, self._deployment.settings.queue.drain)
        return new

    async def _until_ready(self, new: Worker, old: Worker) -> None:
        try:
            async with asyncio.timeout(READY_S):
                await new.handle.ready.remote()
        except (RayError, TimeoutError) as error:
            log.warning("%s is not ready (%s); %s ends all the same", new.name, type(error).__name__, old.name)

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
            self._introduced.discard(worker.name)
            self._lost(WorkerLost(worker.name, cause, charged))

    async def _watch(self, worker: Worker) -> str:
        """Returns the cause once the process is dead. That it cannot be reached is no proof of that."""
        wait_s = 0.1
        while True:
            try:
                await worker.handle.sentinel.remote()
            except (ActorDiedError, RuntimeEnvSetupError, ActorUnschedulableError) as error:
                return _cause_of_death(error)
            except RayError as error:
                log.warning("%s cannot be reached: %s", worker.name, type(error).__name__)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)

    async def _start(self, place: Place, kind: PoolSettings) -> Worker:
        name = f"{place.name}.{self._deployment.fingerprint}{kind.fingerprint}{token_hex(2)}"
        node = self._spread.wanted(place.name)
        worker = Worker(name, await asyncio.to_thread(self._create, name, place.pool, kind, node))
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
        while not self._stopping:
            await asyncio.sleep(LEVEL_S)
            free = [pool for pool, (kind, _) in self._plan.items() if not (kind.needs() or kind.labels)]
            kept = [place for place in self.roll.places.values() if not place.given_up]
            names = [place.worker.name for place in kept if place.worker is not None]
            for name in await asyncio.to_thread(self._spread.moves, names, free):
                worker = self._workers.get(name)
                if worker is None:
                    continue
                log.info("%s makes room for a worker on another node", name)
                try:
                    await worker.handle.leave.remote("another node has more room")
                except RayError as error:
                    log.warning("%s cannot be asked to leave: %s", name, type(error).__name__)

    def _create(self, name: str, pool: str, kind: PoolSettings, node: str | None) -> Any:
        deployment = self._deployment
        # Workers need no way into the database, and get none.
        handed = deployment.settings.model_copy(update={"storage": StorageSettings()})
        actor = WORKER_PREFIX + name
        return make(actor, deployment.namespace, kind, node, name, pool, kind, handed, deployment.start_dir)

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


def _cause_of_death(error: RayError) -> str:
    """What Ray knows of it, without its advice and the names of its own things."""
    first, *_ = text = str(error).strip().split("\n")
    if not isinstance(error, ActorDiedError):
        # What went wrong stands last, below a traceback of Ray's own.
        last = next(filter(None, map(str.strip, reversed(text))), first)
        return f"it cannot start: {first[:200]}" + (f" ... {last[-300:]}" if last != first.strip() else "")
    details = (line.partition("Worker exit detail: ")[2].partition(" Some common causes")[0] for line in text)
    return f"its process was killed or crashed: {next(filter(None, details), first)}"[:300]


async def _pause(failures: int) -> None:
    """After so many of them in a row."""
    await asyncio.sleep(min(0.1 * 2.0 ** min(failures, 20), LAST_BACKOFF_S))
