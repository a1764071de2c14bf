"""What every part of a history shares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

from asyncproc.core.batches import Batching
from asyncproc.core.schedule import Schedule
from asyncproc.core.settings import CoreSettings
from asyncproc.core.steering import Rules
from asyncproc.core.step import Core
from asyncproc.core.task import TaskId
from simulation.agenda import NOON, Agenda
from simulation.chance import Chance
from simulation.faults import Nemesis
from simulation.ledger import Ledger
from simulation.steering import Turnstile
from simulation.table import Table
from simulation.timetable import Timetable

Write: TypeAlias = Callable[[str], None]


@dataclass(slots=True)
class Scene:
    chance: Chance
    agenda: Agenda
    nemesis: Nemesis
    table: Table
    ledger: Ledger
    settings: CoreSettings
    make_core: Callable[[CoreSettings, int], Core]
    write: Write | None = None
    """Takes the lines of a trace where one is wanted."""
    rules: Rules | None = None
    """What an operator set, None where the queues are left alone."""
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    affine: bool = False
    """Tasks have affinity keys."""
    batching: Mapping[str, Batching] = field(default_factory=dict)
    """Types of which workers take several tasks in one call."""
    turnstile: Turnstile = field(default_factory=Turnstile)
    away_until: float = 0.0
    """Postgres answers nobody before that."""
    calm: bool = False
    """No faults any more."""
    lacking: str = ""
    """A task type that some workers do not know as long as there are faults; empty where all know all."""
    old_code: Chance | None = None
    """Who of the workers is one of those; apart from all other chance."""
    poison: set[TaskId] = field(default_factory=set)
    """Tasks that kill who starts them."""
    timetable: Timetable | None = None
    """Where there are schedules."""
    epochs: dict[int, int] = field(default_factory=dict)
    """Of each poll under way the epoch that its session is of."""
    shaped: bool = False
    """Some tasks ask for resources, which the workers of pools of their own have."""
    steps: int = 0
    tickets: "count[int]" = field(default_factory=lambda: count(1))

    def say(self, text: str, *values: object) -> None:
        """A line of the trace. The values are put in where somebody reads it."""
        if self.write is not None:
            self.write(f"{self.agenda.now - NOON:12.6f}  {text % values}")
