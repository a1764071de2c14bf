"""What operators ask to be changed while the system runs, as it travels from the API to the QueueActor."""

from typing import Literal, NamedTuple, TypeAlias

from asyncproc.core.schedule import Tick
from asyncproc.core.steering import Pause

Kind: TypeAlias = Literal["queue", "type", "rate", "pool"]
"""What stored settings are settings of."""
Mode: TypeAlias = Literal["create", "replace", "merge"]


class Put(NamedTuple):
    """Store settings: new ones, in place of what is stored, or on top of it, where null takes a key away."""

    kind: Kind
    name: str
    document: bytes
    mode: Mode


class Delete(NamedTuple):
    """Store nothing any more; a queue is neither paused nor drained then."""

    kind: Kind
    name: str


class PauseFor(NamedTuple):
    """Nothing more begins."""

    pause: Pause
    """Without `since`, which the QueueActor knows."""
    for_s: float = 0.0
    """From now on; 0 is what the pause says."""


class Resume(NamedTuple):
    """End a pause, and of a queue also that it is drained."""

    scope: Literal["all", "queue", "type"]
    name: str


class Drain(NamedTuple):
    """Take no new tasks into a queue."""

    queue: str


class PutSchedule(NamedTuple):
    """Store what is said of a schedule."""

    name: str
    document: bytes
    version: int
    """Of what is to be replaced; 0 where there is nothing yet."""


class DeleteSchedule(NamedTuple):
    """Store nothing of it any more, be it a pause."""

    name: str


class PauseSchedule(NamedTuple):
    """Its ticks pass without a task."""

    name: str
    pause: Pause
    for_s: float = 0.0


class ResumeSchedule(NamedTuple):
    name: str


class AskTicks(NamedTuple):
    """Make tasks of a schedule out of turn. Ids that were used for that before are passed over."""

    name: str
    ticks: tuple[Tick, ...]


ScheduleChange: TypeAlias = PutSchedule | DeleteSchedule | PauseSchedule | ResumeSchedule
RuleChange: TypeAlias = Put | Delete | PauseFor | Resume | Drain
Change: TypeAlias = RuleChange | ScheduleChange | AskTicks
