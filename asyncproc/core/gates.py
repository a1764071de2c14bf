"""What keeps ready tasks from starting: limits on how many run, token buckets, pauses.

All tasks of a lane meet the same gates. A lane before a shut gate is parked there and costs nothing until the gate
opens; then one lane is let go on, whose turn it is, and the next once that one was served or went elsewhere.
"""

from collections.abc import Container, Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from asyncproc.core.parking import Parking
from asyncproc.core.steering import Rules

if TYPE_CHECKING:
    from asyncproc.core.lanes import Lane
    from asyncproc.core.streams import Stream
    from asyncproc.core.turns import Turns

EPSILON: Final = 1e-9
"""A bucket that misses a unit by less than rounding is not waited for."""


class Gate:
    """A gate by itself is shut for good: a pause."""

    __slots__ = ("kind", "may_be_shut", "name", "parked")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.may_be_shut = True
        """False where nobody needs to ask: most gates are wide open, and every task comes past them."""
        self.parked: dict[Stream, Parking] = {}
        """The queues whose lanes wait here."""

    def opens_at(self, units: float, now: float) -> float:
        """When so many units can be had: `now` or before where they can be had at once, infinity where nobody knows."""
        return inf

    def take(self, units: float, now: float) -> None:
        """A task that needs so many units starts."""

    def give_back(self, units: float) -> None:
        """It does not run any more."""

    def park(self, lane: "Lane") -> None:
        """The lane waits here; call it again when a better task comes into it."""
        parking = self.parked.get(lane.stream)
        if parking is None:
            parking = self.parked[lane.stream] = Parking(self)
        parking.put(lane)

    def let_on(self, now: float) -> None:
        """One more of the lanes parked here may try, if the gate is open for it: one of each pool, for nobody knows
        here which of them has a worker to spare."""
        for lane in self.first_parked():
            if self.opens_at(lane.units(self), now) <= now:
                self.parked[lane.stream].leave(lane)

    def first_parked(self) -> "list[Lane]":
        """In each pool the one whose turn it is."""
        first: dict[Turns[Stream], Lane] = {}
        for stream, parking in list(self.parked.items()):
            lane = parking.first()
            if lane is None:
                del self.parked[stream]
                continue
            other = first.setdefault(stream.lineup, lane)
            if stream.passed < other.stream.passed:
                first[stream.lineup] = lane
        return list(first.values())


class RunningLimit(Gate):
    """So many tasks at once."""

    __slots__ = ("limit", "used")

    def __init__(self, kind: str, name: str, limit: int) -> None:
        super().__init__(kind, name)
        self.limit = limit
        self.used = 0
        self.may_be_shut = limit <= 0

    def opens_at(self, units: float, now: float) -> float:
        return now if self.used < self.limit else inf

    def take(self, units: float, now: float) -> None:
        self.used += 1
        self.may_be_shut = self.used >= self.limit

    def give_back(self, units: float) -> None:
        self.used -= 1
        self.may_be_shut = self.used >= self.limit


class TokenBucket(Gate):
    """Fills steadily up to its burst; what a task takes of it does not come back."""

    __slots__ = ("at", "burst", "level", "per_s", "used")

    def __init__(self, name: str, per_s: float, burst: float, level: float, at: float) -> None:
        super().__init__("rate", name)
        self.per_s = per_s
        self.burst = burst
        self.level = min(level, burst)
        self.at = at
        self.used = False
        """Something was taken that is not written down yet."""

    def filled(self, now: float) -> float:
        return min(self.burst, self.level + max(0.0, now - self.at) * self.per_s)

    def opens_at(self, units: float, now: float) -> float:
        # What takes more than the bucket can hold waits for a full one, and leaves a debt.
        lacks = min(units, self.burst) - self.filled(now)
        return now if lacks <= EPSILON else now + lacks / self.per_s

    def take(self, units: float, now: float) -> None:
        self.level, self.at, self.used = self.filled(now) - units, now, True


Draw: TypeAlias = tuple[Gate, float]
"""A gate, and how many units a task takes there."""


class Gates:
    """All gates of a snapshot of rules."""

    def __init__(self, rules: Rules, buckets: Mapping[str, TokenBucket], now: float) -> None:
        """Buckets that were there before go on from the level they have."""
        self._rules = rules
        self._limits: dict[tuple[str, str, str], RunningLimit] = {}
        self._paused_types = {pause.name: Gate("pause", pause.name) for pause in rules.pauses if pause.scope == "type"}
        self.buckets = {
            name: TokenBucket(name, rate.per_s, rate.burst, *_level(buckets.get(name), rate.burst, now))
            for name, rate in rules.rates.items()
        }

    def of(self, queue: str, type_name: str, concurrency_key: str) -> tuple[Draw, ...]:
        """What a task like this must pass."""
        rules, own = self._rules.queue(queue), self._rules.types.get(type_name)
        gates: list[Draw] = []
        if type_name in self._paused_types:
            gates.append((self._paused_types[type_name], 1.0))
        if rules.max_running is not None:
            gates.append((self._limit("queue", queue, "", rules.max_running), 1.0))
        if concurrency_key:
            limit = 1 if rules.max_running_per_key is None else rules.max_running_per_key
            gates.append((self._limit("key", queue, concurrency_key, limit), 1.0))
        if own is not None:
            if own.max_running is not None:
                gates.append((self._limit("type", type_name, "", own.max_running), 1.0))
            gates += [(self.buckets[name], units) for name, units in own.draws if name in self.buckets]
        return tuple(gates)

    def waiting(self) -> Iterator[TokenBucket]:
        """Buckets before which lanes are parked."""
        return (bucket for bucket in self.buckets.values() if bucket.first_parked())

    def refill(self, levels: Mapping[str, tuple[float, float]]) -> None:
        """Go on from levels that were written down."""
        for name, (level, at) in levels.items():
            if (bucket := self.buckets.get(name)) is not None:
                bucket.level, bucket.at = min(level, bucket.burst), at

    def spent(self) -> Iterator[tuple[str, float, float]]:
        """Buckets from which something was taken since this was last asked: name, level, its instant."""
        for name, bucket in self.buckets.items():
            if bucket.used:
                bucket.used = False
                yield name, bucket.level, bucket.at

    def next_opening(self, now: float) -> float | None:
        """When the next lane that waits for a bucket may go on."""
        return min(
            (
                bucket.opens_at(lane.units(bucket), now)
                for bucket in self.buckets.values()
                for lane in bucket.first_parked()
            ),
            default=None,
        )

    def tidy(self, needed: Container[Gate]) -> None:
        """Forget limits that nothing runs under, but for those that are needed; they are made anew when they are."""
        self._limits = {key: gate for key, gate in self._limits.items() if gate.used or gate in needed}

    def __len__(self) -> int:
        return len(self._limits)

    def _limit(self, kind: str, name: str, key: str, limit: int) -> RunningLimit:
        gate = self._limits.get((kind, name, key))
        if gate is None:
            gate = self._limits[kind, name, key] = RunningLimit(kind, key or name, limit)
        return gate


def _level(before: TokenBucket | None, burst: float, now: float) -> tuple[float, float]:
    return (burst, now) if before is None else (before.filled(now), now)


def shut(draws: tuple[Draw, ...], now: float) -> Gate | None:
    """The first of these gates that is not open."""
    for gate, units in draws:
        if gate.may_be_shut and gate.opens_at(units, now) > now:
            return gate
    return None


def take(draws: tuple[Draw, ...], now: float) -> None:
    """A task that meets these gates starts; where one is still open the next lane may try."""
    for gate, units in draws:
        gate.take(units, now)
        if gate.parked:
            gate.let_on(now)


def give_back(draws: tuple[Draw, ...], now: float) -> None:
    """It does not run any more."""
    for gate, units in draws:
        gate.give_back(units)
        if gate.parked:
            gate.let_on(now)
