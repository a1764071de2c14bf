"""A schedule: tasks that are made by the clock. Its instants are reckoned by a `Plan`, outside of the core."""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from asyncproc.core.task import Options, TaskId

MAX_SCHEDULES: Final = 5_000
MAX_LINE: Final = 1_000
"""Ticks of one schedule that wait for the task before them; further ones are skipped."""
_JUST_BEFORE_S: Final = 1e-6


class Overlap(StrEnum):
    """What becomes of a tick while the last task of its schedule has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


class CatchUp(StrEnum):
    """What becomes of ticks that nobody was there for."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


Kind: TypeAlias = Literal["tick", "trigger", "backfill"]
Outcome: TypeAlias = Literal["task", "skipped", "waiting", "missed", "drained"]
"""`missed` stands for all ticks from its instant on that were let go by at once."""


class Plan(Protocol):
    """Instants, in seconds since 1970. Equal plans give equal instants."""

    def after(self, instant: float) -> float | None:
        """The first one after it; None where there is none any more."""

    def until(self, instant: float) -> float | None:
        """The last one that is not after it."""

    def text(self, instant: float) -> bytes:
        """An instant as a JSON value."""


@dataclass(frozen=True, slots=True)
class Schedule:
    name: str
    plan: Plan
    options: Options
    payload: bytes
    """A JSON object."""
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LAST
    within_s: float = 86_400.0
    """Of ticks missed, how old those are at most that are caught up with, where that is `all`."""
    instant_field: bytes = b""
    """As a JSON string: the member of the payload that gets the instant of the tick; empty for none."""
    paused_until: float | None = None
    """0 is until it is resumed; None where it is not paused."""
    stamp: str = ""
    """What it means for a tick to be due. Where that changes, what was due before is over."""

    def is_paused(self, now: float) -> bool:
        return self.paused_until is not None and not 0 < self.paused_until <= now

    def next_after(self, position: float) -> float | None:
        if self.paused_until is None:
            return self.plan.after(position)
        return self.plan.after(max(position, self.paused_until)) if self.paused_until else None

    def first_to_make(self, now: float, grace_s: float) -> float:
        """Ticks before this instant are let go by. What is no later than `grace_s` is on time."""
        on_time = now - grace_s
        if self.catch_up is CatchUp.ALL:
            return min(on_time, now - self.within_s)
        if self.catch_up is CatchUp.LAST:
            last = self.plan.until(now)
            return on_time if last is None else min(on_time, last)
        return on_time

    def payload_at(self, instant: float) -> bytes:
        if not self.instant_field:
            return self.payload
        member = b"%b:%b}" % (self.instant_field, self.plan.text(instant))
        return b"{" + member if self.payload == b"{}" else b"%b,%b" % (self.payload[:-1], member)


class Position(NamedTuple):
    """How far a schedule is: all its ticks up to `at` are decided."""

    stamp: str
    at: float
    last_task: TaskId | None = None
    is_live: bool = False
    """Whether that one has not ended."""


class Tick(NamedTuple):
    """One that waits for its turn, or is asked for."""

    task_id: TaskId
    due_at: float
    kind: Kind = "tick"


def just_before(instant: float) -> float:
    return instant - _JUST_BEFORE_S


def tick_id(name: str, due_at: float, now: float) -> TaskId:
    """A UUIDv7 whose chance is in the tick: one and the same task, however often its making is decided in one step."""
    digest = int.from_bytes(blake2b(f"{name}\n{due_at!r}".encode(), digest_size=10).digest())
    ms = int(now * 1000)
    return ((ms << 80) | (0x7 << 76) | ((digest & 0xFFF) << 64) | (0b10 << 62) | (digest >> 18)).to_bytes(16)


class TickRecord(NamedTuple):
    """What became of a tick, as the table has it."""

    task_id: TaskId
    due_at: float
    kind: Kind
    outcome: Outcome
    decided_at: float
