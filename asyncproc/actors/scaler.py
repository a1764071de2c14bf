"""Which pools there are and how many workers each has: what is set, and what the backlog asks for."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ray

from asyncproc.actors.places import Arrangement, Standing, problem_of
from asyncproc.actors.pools import Pools
from asyncproc.clock import monotonic
from asyncproc.config import Settings
from asyncproc.core.feasible import Node, is_met_by, lacking
from asyncproc.core.pool import Pool
from asyncproc.core.scaling import Bounds, Load, Wanted, begin, decide, load_of
from asyncproc.core.shape import JOINT
from asyncproc.core.step import Core
from asyncproc.pool_precedence import of_shape
from asyncproc.pool_settings import PoolSettings

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
"""How often the backlog is looked at."""
SLOW_START_S: Final = 2.0
"""A worker that did not start by then lacks something."""
SLOW_SETUP_S: Final = 15.0
"""The same where something is to be installed first."""
NODES_S: Final = 5.0
"""How often the nodes are asked what they offer, while something is lacking."""
MOST_HISTORY: Final = 20


@dataclass(slots=True)
class _Scaled:
    """One pool."""

    kind: PoolSettings
    wanted: Wanted
    since: float
    short_since: float | None = None
    problem: str = ""
    is_met: bool = True
    """As far as is known some node could hold its workers."""
    history: deque[tuple[float, int, str]] = field(default_factory=lambda: deque(maxlen=MOST_HISTORY))


class Scaler:
    def __init__(
        self, settings: Settings, pools: Pools, core: Callable[[], Core | None], now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._pools = pools
        self._core = core
        self._now = now
        self._kinds: Mapping[str, PoolSettings] = {}
        self._scaled: dict[str, _Scaled] = {}
        self._changed = asyncio.Event()
        self._nodes_at = float("-inf")

    def obey(self, kinds: Mapping[str, PoolSettings]) -> None:
        """These are the pools from now on, besides those of shapes."""
        self._kinds = kinds
        self._changed.set()

    async def run(self) -> None:
        """Keep the pools until cancelled."""
        found: dict[str, int] = {}
        for name in self._pools.found():
            found[name] = found.get(name, 0) + 1
        for pool, number in found.items():
            if (kind := self._kind(pool)) is not None:
                self._scaled[pool] = _Scaled(kind, begin(number, self._now()), self._now())
        self._decide()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pools.run(self._plan(), self.held))
            group.create_task(self._look())

    def standings(self) -> list[Standing]:
        core = self._core()
        return [self._standing(core, name, scaled) for name, scaled in sorted(self._scaled.items())]

    def problem(self, pool: str) -> str:
        """Why workers of a pool that are wanted do not come; empty where nothing is wrong."""
        scaled = self._scaled.get(pool)
        if scaled is None:
            return ""
        if JOINT in pool and not scaled.wanted.workers:
            return scaled.problem
        return problem_of(self._pools.roll.kept(pool), scaled.problem)

    def problems(self) -> list[str]:
        """The same of all pools, with their names."""
        found = ((name, self.problem(name)) for name in sorted(self._scaled))
        return [f"pool {name}: {problem}" for name, problem in found if problem]

    def wants_workers(self) -> bool:
        return not self._scaled or any(scaled.wanted.workers for scaled in self._scaled.values())

    async def _look(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            is_told = self._changed.is_set()
            self._changed.clear()
            if self._decide() or is_told:
                self._pools.arrange(self._plan(), self.held)
            await self._look_for_lacks()

    def _decide(self) -> bool:
        """Whether something is wanted otherwise than before."""
        core = self._core()
        if core is None or core.draining:
            return False
        before = {name: (scaled.kind, scaled.wanted.workers) for name, scaled in self._scaled.items()}
        for name, kind in self._kinds.items():
            load = load_of(core, core.backlog.pool(name)) if kind.least < kind.most else Load()
            self._scale(name, kind, load)
        self._decide_shapes(core)
        for name in [name for name in self._scaled if name not in self._kinds and not self._is_shape(core, name)]:
            del self._scaled[name]
        return before != {name: (scaled.kind, scaled.wanted.workers) for name, scaled in self._scaled.items()}

    def _decide_shapes(self, core: Core) -> None:
        """One pool a shape, as long as it has work; those that have workers come before new ones.

        A shape that no node can hold has one worker that waits, for whoever may add a node, and takes the place of no
        other shape.
        """
        names = {name for name in (*core.backlog.pools, *self._scaled) if JOINT in name}
        if not names:
            return
        room = dict.fromkeys((True, False), self._settings.shapes.most)
        for name in sorted(names, key=lambda name: (not self._has_workers(name), name)):
            kind = of_shape(self._settings, self._kinds, name)
            if kind is None:
                # The pool that it belongs to is no more.
                self._scaled.pop(name, None)
                continue
            pool = core.backlog.pools.get(name)
            load = Load() if pool is None else load_of(core, pool)
            is_met = name not in self._scaled or self._scaled[name].is_met
            if room[is_met] > 0:
                self._scale(name, kind, load, kind.bounds if is_met else replace(kind.bounds, most=1))
                if (scaled := self._scaled[name]).problem.startswith(_FULL):
                    scaled.problem = ""
                room[is_met] -= self._has_workers(name)
            elif load.ready:
                scaled = self._scaled.setdefault(name, _Scaled(kind, Wanted(), self._now()))
                scaled.problem = f"{_FULL}{self._settings.shapes.most} shapes of resources, which is the most"

    def _scale(self, name: str, kind: PoolSettings, load: Load, bounds: Bounds | None = None) -> None:
        now = self._now()
        scaled = self._scaled.get(name)
        if scaled is None:
            scaled = self._scaled[name] = _Scaled(kind, Wanted(), now)
        before, scaled.kind = scaled.wanted, kind
        scaled.wanted = wanted = decide(bounds or kind.bounds, load, before, now)
        if wanted.workers != before.workers:
            scaled.since = now
            scaled.history.append((now, wanted.workers, wanted.reason))
            log.info("pool %s: %d workers, not %d: %s", name, wanted.workers, before.workers, wanted.reason)

    def _has_workers(self, name: str) -> bool:
        scaled = self._scaled.get(name)
        return scaled is not None and (scaled.wanted.workers > 0 or bool(self._pools.roll.of(name)))

    def _is_shape(self, core: Core, name: str) -> bool:
        return JOINT in name and (name in core.backlog.pools or self._has_workers(name))

    def _kind(self, name: str) -> PoolSettings | None:
        return of_shape(self._settings, self._kinds, name) if JOINT in name else self._kinds.get(name)

    def _plan(self) -> dict[str, Arrangement]:
        return {name: Arrangement(scaled.kind, scaled.wanted.workers) for name, scaled in self._scaled.items()}

    def held(self, worker: str) -> int | None:
        """How many tasks it has; None where it takes none yet."""
        core = self._core()
        known = None if core is None else core.workers.get(worker)
        return None if known is None or not known.session else len(known.held)

    # ---- what keeps workers from coming

    async def _look_for_lacks(self) -> None:
        now, slow = monotonic(), []
        if self._pools.are_there() and all(scaled.short_since is None for scaled in self._scaled.values()):
            return
        for name, scaled in self._scaled.items():
            if any(place.worker is not None and self._is_starting(place.worker.name)
                   for place in self._pools.roll.kept(name)):  # fmt: skip
                scaled.short_since = scaled.short_since or now
                if now - scaled.short_since > SLOW_START_S:
                    slow.append((name, scaled))
            elif scaled.short_since is not None:
                scaled.short_since, scaled.problem, scaled.is_met = None, "", True
        if slow and now >= self._nodes_at:
            self._nodes_at = now + NODES_S
            nodes = [_node(node) for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
            for name, scaled in slow:
                needs, labels = scaled.kind.needs(), scaled.kind.labels
                scaled.is_met, problem = is_met_by(needs, labels, nodes), lacking(needs, labels, nodes)
                is_slow = scaled.short_since is not None and now - scaled.short_since > SLOW_SETUP_S
                if not problem and is_slow and scaled.kind.runtime_env:
                    problem = "Ray is still setting up its runtimeEnv"
                if problem and problem != scaled.problem:
                    log.warning("pool %s: %s", name, problem)
                scaled.problem = problem

    def _is_starting(self, worker: str) -> bool:
        return self.held(worker) is None

    def _standing(self, core: Core | None, name: str, scaled: _Scaled) -> Standing:
        pool = Pool(name, 0.0, 0, 0.0) if core is None else core.backlog.pools.get(name, Pool(name, 0.0, 0, 0.0))
        known = [worker for worker in pool.workers.values() if worker.session]
        kept = self._pools.roll.kept(name)
        return Standing(
            name,
            sum(not worker.leaving for worker in known),
            sum(place.worker is None or self._is_starting(place.worker.name) for place in kept),
            sum(worker.leaving for worker in known),
            scaled.wanted.workers,
            scaled.wanted.reason,
            scaled.since,
            self.problem(name),
            scaled.kind,
            tuple(scaled.history),
        )


_FULL: Final = "no workers are made for it while there are those of "


def _node(node: Mapping[str, Any]) -> Node:
    return Node(node["Resources"], node.get("Labels") or {})
