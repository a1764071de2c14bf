"""One seed, one history: a time of faults, then a time without, within which everything must end."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from asyncproc.core.batches import Batching
from asyncproc.core.settings import LARGE_BYTES, CoreSettings
from asyncproc.core.steering import QueueRules
from asyncproc.core.step import Core
from simulation.agenda import NOON, Agenda
from simulation.chance import Chance
from simulation.cluster import Cluster
from simulation.family import MANY
from simulation.faults import Fault, Nemesis
from simulation.ledger import Ledger
from simulation.network import Network
from simulation.queue_actor import QueueActor
from simulation.rules import Rule, Violation
from simulation.scene import Scene, Write
from simulation.steering import some_rates, some_rules
from simulation.table import Table
from simulation.timetable import Timetable, some_schedules
from simulation.workers import SECONDS, Worker

FAULTS_S: Final = 30.0
CALM_S: Final = 600.0
"""Within which everything must have ended."""
_SCHEDULES: Final = 1_000_000_007
LATE_S: Final = 5.0
"""Until the last message that is under way has arrived."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The parts that a mutant replaces."""

    core: Callable[[CoreSettings, int], Core] = Core
    table: type[Table] = Table
    actor: type[QueueActor] = QueueActor
    worker: type[Worker] = Worker


@dataclass(slots=True)
class Told:
    """What there is to say of a history that broke no rule."""

    steps: int
    events: int
    tasks: int
    runs: int
    again: int
    fired: Counter[Fault]


class History:
    def __init__(self, seed: int, cast: Cast | None = None, write: Write | None = None) -> None:
        cast = cast or Cast()
        self._chance = chance = Chance(seed)
        agenda = Agenda()
        settings = _settings(chance)
        if seed % 5 == 2:
            # Not drawn, as below.
            settings = replace(settings, longest_poll_s=9.0, idle_polls_a_second=0.5)
        table = cast.table(page_bytes=chance.choice((25, 1 << 20)), large_bytes=settings.large_bytes)
        table.edges.most = chance.choice((1, 3, MANY, MANY))
        self.scene = Scene(
            chance,
            agenda,
            Nemesis(chance),
            table,
            Ledger(agenda, table),
            settings,
            cast.core,
            write,
            # Not drawn: histories without it are what they were before there were any with it.
            shaped=seed % 8 == 7,
        )
        if chance.choice((True, False)):
            self.scene.rules = some_rules(chance, settings, NOON, some_rates(chance))
        if seed % 4 == 3:
            self.scene.old_code = Chance(seed + 1_000_003)
            self.scene.lacking = self.scene.old_code.choice(tuple(SECONDS))
        # By a chance of its own: the other choices of a seed stay as they are.
        if schedules := some_schedules(Chance(seed + _SCHEDULES), FAULTS_S * 0.8):
            self.scene.schedules = schedules
            self.scene.timetable = Timetable(schedules, table, self.scene.ledger)
        self.scene.batching = _some_batching(chance)
        self.scene.affine = chance.choice((False, False, True))
        self._cluster = Cluster(self.scene, Network(self.scene), cast.actor, cast.worker)

    def run(self) -> Told:
        """Raises `Violation` where a rule is broken."""
        try:
            self._run()
        except Violation:
            raise
        except Exception as error:
            raise Violation(Rule.SOUND, f"{type(error).__name__}: {error}") from error
        scene = self.scene
        runs = sum(len(runs) for runs in scene.ledger.runs.values())
        return Told(
            scene.steps, scene.agenda.events, len(scene.ledger.posted), runs, scene.ledger.again, scene.nemesis.fired
        )

    def _run(self) -> None:
        scene, chance = self.scene, self._chance
        self._cluster.clients.plan(chance.choice((10, 30, 60, 90)), within_s=FAULTS_S * 0.8)
        if scene.rules is not None:
            for _ in range(3):
                scene.agenda.after(chance.uniform(0.0, FAULTS_S), self._cluster.change_rules)
        scene.agenda.run(NOON + FAULTS_S)
        scene.say("the faults end")
        self._cluster.calm_down()
        if not scene.agenda.run(scene.agenda.now + CALM_S, over=self._everything_ended):
            left = ", ".join(f"{row.state} {int.from_bytes(row.id)}" for row in list(scene.table.live.values())[:5])
            raise Violation(Rule.LIVENESS, f"{len(scene.table.live)} tasks are left: {left}")
        scene.agenda.run(scene.agenda.now + LATE_S)
        scene.agenda.run(scene.agenda.now + CALM_S, over=self._everything_ended)
        scene.ledger.judge()
        if scene.timetable is not None:
            scene.timetable.judge()

    def _everything_ended(self) -> bool:
        scene, timetable = self.scene, self.scene.timetable
        ended = not (scene.table.live or scene.table.requests)
        return ended and self._cluster.clients.over() and (timetable is None or timetable.over())


def _some_batching(chance: Chance) -> dict[str, Batching]:
    types = chance.choice(((), (), ("Tiny",), ("Short",), ("Tiny", "Long")))
    return {name: Batching(chance.choice((2, 3, 8)), chance.choice((0.0, 0.0, 0.02, 0.5))) for name in types}


def _settings(chance: Chance) -> CoreSettings:
    """Times are short beside those of the faults, so that a history has many of each."""
    return CoreSettings(
        queues={"mail": QueueRules(weight=3), "images": QueueRules(aging_s=chance.choice((1.0, 60.0, 1e10)))},
        pool_of={"video": "gpu"},
        default_pool="cpu",
        window=chance.choice((1, 2, 5, 10_000, 10_000)),
        affinity_s=chance.choice((0.1, 1.0)),
        large_bytes=chance.choice((20, LARGE_BYTES, LARGE_BYTES)),
        lease_bytes=chance.choice((50, 1 << 20)),
        window_bytes=chance.choice((60, 1 << 20, 1 << 20)),
        max_held=chance.choice((1, 4, 1000, 1000)),
        poll_s=2.0,
        longest_poll_s=2.0,
        silence_s=5.0,
        tick_grace_s=1.0,
    )
