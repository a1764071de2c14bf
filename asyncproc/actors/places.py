"""Where a worker is or is to be: a number in a pool, and who is there."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from asyncproc.pool_settings import PoolSettings

_JOINT: Final = "."


@dataclass(frozen=True, slots=True)
class Worker:
    """A running incarnation: `pool-number.code`, where the code begins with the fingerprints of what it runs."""

    name: str
    handle: Any

    @property
    def place(self) -> str:
        return self.name.rpartition(_JOINT)[0]

    @property
    def code(self) -> str:
        return self.name.rpartition(_JOINT)[2]


class Arrangement(NamedTuple):
    """What is wanted of a pool."""

    kind: PoolSettings
    workers: int


@dataclass(slots=True, eq=False)
class Place:
    pool: str
    number: int
    worker: Worker | None = None
    successor: Worker | None = None
    """Who takes the place when the worker has left it."""
    given_up: bool = False
    """Nobody comes after the worker."""
    trouble: str = ""
    """Why the last worker could not start."""

    @property
    def name(self) -> str:
        return f"{self.pool}-{self.number}"


class Standing(NamedTuple):
    """How the workers of a pool stand, as the QueueActor knows."""

    pool: str
    present: int
    """Workers that take tasks."""
    starting: int
    leaving: int
    """Workers that only finish what they run."""
    wanted: int
    reason: str
    since: float
    """When that was decided, in seconds since 1970."""
    problem: str
    """Why workers that are wanted do not come; empty where nothing is wrong."""
    kind: PoolSettings
    history: tuple[tuple[float, int, str], ...] = ()
    """The last decisions that changed something: instant, workers, reason."""


@dataclass(slots=True)
class Roll:
    """All places, by name."""

    places: dict[str, Place] = field(default_factory=dict)

    def of(self, pool: str) -> list[Place]:
        return [place for place in self.places.values() if place.pool == pool]

    def kept(self, pool: str) -> list[Place]:
        return [place for place in self.of(pool) if not place.given_up]

    def add(self, pool: str, numbers: Iterator[int]) -> Place:
        """A place of the next of these numbers that is free."""
        number = next(n for n in numbers if f"{pool}-{n}" not in self.places)
        place = Place(pool, number)
        self.places[place.name] = place
        return place

    def adopt(self, workers: Iterable[Worker]) -> list[Worker]:
        """Put workers of an earlier reign where their names say; returns those for whom there is no such place."""
        homeless = []
        for worker in workers:
            pool, _, number = worker.place.rpartition("-")
            if worker.place in self.places or not pool or not number.isdecimal():
                homeless.append(worker)
            else:
                self.places[worker.place] = Place(pool, int(number), worker)
        return homeless


def to_give_up(places: Iterable[Place], number: int, load: Callable[[str], int | None]) -> list[Place]:
    """The places that are missed least: where nobody works yet, then where least is done, the last ones first.

    `load` is how much a worker holds, None where it takes no tasks yet."""

    def loss(place: Place) -> tuple[int, int]:
        held = None if place.worker is None else load(place.worker.name)
        return (-1 if held is None else held, -place.number)

    return sorted(places, key=loss)[:number]


def problem_of(places: Iterable[Place], waiting_for: str) -> str:
    """`waiting_for` is what workers that do not start lack."""
    return waiting_for or next((place.trouble for place in places if place.trouble), "")


Plan = Mapping[str, Arrangement]
