"""Processes come and go: QueueActors that reign, a second one that does not know it is over, workers in their pools."""

from collections.abc import Callable
from typing import Final

from asyncproc.core.events import RulesChanged, WorkerLost
from simulation.clients import Clients
from simulation.faults import Fault
from simulation.network import Network
from simulation.operator import Operator
from simulation.queue_actor import QueueActor
from simulation.scene import Scene
from simulation.steering import some_rules
from simulation.workers import SECONDS, Worker

POOLS: Final = ("cpu", "gpu")
POOLS_OF_SHAPES: Final = ("cpu~gpu1", "gpu~gpu1")
TICK_S: Final = 0.25


class Cluster:
    def __init__(self, scene: Scene, network: Network, make_actor: type[QueueActor], make_worker: type[Worker]) -> None:
        self.clients = Clients(scene, network, self._find_any)
        self._operator = Operator(scene, network, self._find_any)
        network.find = self._find
        self._scene = scene
        self._network = network
        self._make_actor = make_actor
        self._make_worker = make_worker
        self._actors: list[QueueActor] = []
        self._workers: dict[str, Worker] = {}
        self._starting = False
        self._start_actor()
        self._pools = POOLS + POOLS_OF_SHAPES if scene.shaped else POOLS
        for pool in self._pools:
            for _ in range(scene.chance.randint(1, 3)):
                self._hire(pool)
        scene.agenda.after(TICK_S, self._tick)

    def calm_down(self) -> None:
        """The faults end. What was broken is mended, what is over is seen to be."""
        self._scene.nemesis.rest()
        self._scene.calm = True
        self._scene.away_until = 0.0
        for actor in self._actors:
            # One whose reign is over and that has nothing to write does not learn of it by itself.
            if actor is not self._actors[-1] or actor.epoch not in {0, self._scene.table.epoch}:
                actor.crash("it was cut off, and is ended")
        for worker in self._workers.values():
            worker.link.cut_until = 0.0
            if worker.alive and worker.types is not None:
                # As if all of them had been replaced.
                worker.types = tuple(SECONDS)
                worker.hang_up()
            if not worker.alive and not worker.known_dead:
                self._report_dead(worker, charged=True)

    # ---- QueueActors

    def _start_actor(self) -> None:
        self._starting = False
        actor = self._make_actor(self._scene, len(self._actors) + 1, self._living, self._actor_ended)
        self._scene.say("%s starts", actor.name)
        self._actors.append(actor)

    def _actor_ended(self, actor: QueueActor) -> None:
        if actor is self._actors[-1] and not self._starting:
            self._starting = True
            self._scene.agenda.after(self._scene.chance.choice((0.01, 0.3, 2.0)), self._start_actor)

    def _find(self) -> QueueActor | None:
        newest = self._actors[-1]
        return None if newest.over else newest

    def _find_any(self) -> QueueActor | None:
        """Whoever has not looked for long may still speak to one that was replaced."""
        others = [actor for actor in self._actors[:-1] if not actor.over]
        if others and self._scene.chance.odds(0.3):
            return others[-1]
        return self._find()

    def _start_second(self) -> None:
        """The one that reigns is taken for dead and is not; some of the workers still reach it."""
        scene, old = self._scene, self._actors[-1]
        if self._starting or old.over:
            return
        scene.nemesis.note(Fault.SECOND_ACTOR)
        self._start_actor()
        for worker in self._workers.values():
            if worker.alive and scene.chance.odds(0.5):
                worker.hang_up(forget_actor=True)
        scene.agenda.after(scene.chance.uniform(0.5, 10.0), old.crash, "it was cut off, and is ended")

    def _redeploy(self) -> None:
        old = self._actors[-1]
        if not old.over:
            self._scene.nemesis.note(Fault.REDEPLOYED)
            old.drain()
            self._scene.agenda.after(self._scene.chance.uniform(0.1, 3.0), old.crash, "it is replaced")

    # ---- workers

    def change_rules(self) -> None:
        """An operator: the table first, then whoever reigns."""
        scene = self._scene
        assert scene.rules is not None
        scene.rules = some_rules(scene.chance, scene.settings, scene.agenda.now, scene.rules.rates)
        actor = self._find()
        if actor is not None and actor.epoch:
            actor.post(RulesChanged(next(scene.tickets), scene.rules))

    def _living(self) -> set[str]:
        return {worker.name for worker in self._workers.values() if not worker.known_dead}

    def _hire(self, pool: str) -> None:
        name = f"{pool}-{len(self._workers) + 1}"
        identity = (name, pool, self._scene.chance.choice((1, 1, 2, 4)))
        worker = self._make_worker(self._scene, self._network, identity, self._find_any, self.clients.make_child)
        worker.kills = self._kill
        if (luck := self._scene.old_code) is not None:
            lacks = not self._scene.calm and luck.odds(0.4)
            worker.types = tuple(kind for kind in SECONDS if not lacks or kind != self._scene.lacking)
        self._workers[name] = worker

    def _kill(self, worker: Worker, fault: Fault) -> None:
        self._scene.nemesis.note(fault)
        if fault is Fault.LAST_WORD:
            worker.last_word()
        worker.die()
        if self._scene.calm or fault not in {Fault.SILENT_DEATH, Fault.LAST_WORD}:
            self._report_dead(worker, charged=fault is Fault.POISON or self._scene.chance.odds(0.8))

    def _report_dead(self, worker: Worker, charged: bool) -> None:
        nemesis, chance = self._scene.nemesis, self._scene.chance
        for _ in range(1 + nemesis.strikes(Fault.MESSAGE_DOUBLED)):
            wait_s = chance.latency() + (2.0 if nemesis.strikes(Fault.MESSAGE_LATE) else 0.0)
            self._scene.agenda.after(wait_s, self._tell_of_death, worker, charged)

    def _tell_of_death(self, worker: Worker, charged: bool) -> None:
        """Where nobody listens the word is lost; the next QueueActor asks who is alive when it begins."""
        worker.known_dead = worker.known_dead or not worker.alive
        actor = self._find()
        if actor is not None:
            actor.post(WorkerLost(worker.name, "killed by signal 9", charged))

    def _fall_silent(self, worker: Worker) -> None:
        agenda = self._scene.agenda
        worker.link.cut_until = agenda.now + self._scene.chance.choice((1.0, 5.0, 12.0))
        self._scene.say("%s is cut off", worker.name)

    # ---- as time goes by

    def _tick(self) -> None:
        nemesis = self._scene.nemesis
        if nemesis.tries(Fault.SECOND_ACTOR):
            self._start_second()
        if nemesis.tries(Fault.REDEPLOYED):
            self._redeploy()
        for worker in [worker for worker in self._workers.values() if worker.alive]:
            self._strike(worker)
        for pool in self._pools:
            if not any(worker.alive and worker.pool == pool for worker in self._workers.values()):
                self._hire(pool)
        self.clients.act()
        self._operator.act()
        self._scene.agenda.after(TICK_S, self._tick)

    def _strike(self, worker: Worker) -> None:
        nemesis = self._scene.nemesis
        strikes: dict[Fault, Callable[[Worker], None]] = {
            Fault.SAID_TO_BE_DEAD: lambda worker: self._report_dead(worker, charged=self._scene.chance.odds(0.8)),
            Fault.SILENCE: self._fall_silent,
            Fault.LEAVING: lambda worker: worker.leave(finishes=self._scene.chance.odds(0.5)),
        }
        for fault, strike in strikes.items():
            if nemesis.strikes(fault):
                strike(worker)
        for fault in (Fault.DEATH, Fault.SILENT_DEATH, Fault.LAST_WORD):
            if worker.alive and nemesis.tries(fault):
                self._kill(worker, fault)
