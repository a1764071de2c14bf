"""Tasks that are to be the only ones with their key: what becomes of each one that asks for it.

Who holds a key was read from the table, and nobody else adds a holder until what is decided here is committed. Requests
are settled one after the other, and each sees what those before it have come to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from asyncproc.core.states import State
from asyncproc.core.task import NewTask, TaskId

WAITING: Final = (State.BLOCKED, State.SCHEDULED, State.QUEUED, State.RETRYING)
NOT_ENDED: Final = (*WAITING, State.RUNNING)


class OnConflict(StrEnum):
    """What becomes of a task whose key is held."""

    RETURN = "return"
    """The one that is there stands for it."""
    REJECT = "reject"
    """Nothing of its request is enqueued."""


class Wish(NamedTuple):
    """Which tasks of its type with its key are in the way of a task."""

    states: tuple[State, ...]
    period_s: float = 0.0
    """Only those that came within so many seconds; 0 is whenever."""
    on_conflict: OnConflict = OnConflict.RETURN


Slot: TypeAlias = tuple[str, str]
"""Type and unique key."""


class Wanted(NamedTuple):
    """What is to be looked for: a slot, the states that count, and the instant from which on, 0 for whenever."""

    type: str
    key: str
    states: tuple[State, ...]
    since: float


class Holder(NamedTuple):
    """A task that is in the way of another."""

    id: TaskId
    state: State
    priority: int
    queue: str


class Asked(NamedTuple):
    """The tasks of one request, each with its wish; None where it may be one of many."""

    tasks: Sequence[NewTask]
    wishes: Sequence[Wish | None]

    def wanted(self, now: float) -> list[Wanted]:
        pairs = zip(self.tasks, self.wishes, strict=True)
        return [wanted(task, wish, now) for task, wish in pairs if wish is not None]


@dataclass(slots=True)
class Settled:
    """What a request came to."""

    new: list[TaskId] = field(default_factory=list)
    found: dict[int, Holder] = field(default_factory=dict)
    """By index, the tasks that stand for its own."""
    conflicts: dict[int, Holder] = field(default_factory=dict)
    """By index, the tasks for which all of it is refused."""
    leans: bool = False
    """On a task that is not committed yet: its own, or one of a request before it."""

    def ids(self) -> list[TaskId]:
        """All that its answer speaks of."""
        holders = (*self.found.values(), *self.conflicts.values())
        return list(dict.fromkeys((*self.new, *(holder.id for holder in holders))))


def slot_of(task: NewTask) -> Slot:
    return (task[2].type, task[4].unique_key)


def wanted(task: NewTask, wish: Wish, now: float) -> Wanted:
    return Wanted(*slot_of(task), wish.states, now - wish.period_s if wish.period_s else 0.0)


def to_be(task: NewTask) -> Holder:
    """The task as it will be once it is committed."""
    options = task[2]
    return Holder(task[0], State.SCHEDULED if task[3] > 0 else State.QUEUED, options.priority, options.queue)


class Settling:
    """The requests of one commit."""

    def __init__(self, holders: Mapping[Wanted, Holder], known: Iterable[TaskId], now: float) -> None:
        """`holders` are those in the table, `known` are tasks of these requests that an earlier call has brought."""
        self._holders = holders
        self._known = frozenset(known)
        self._now = now
        self._new: dict[TaskId, NewTask] = {}
        self._taken: dict[Slot, dict[TaskId, NewTask]] = {}
        """Of these, those with a key."""

    def tasks(self) -> list[NewTask]:
        """All that is to be enqueued."""
        return list(self._new.values())

    def settle(self, asked: Asked) -> Settled:
        settled = Settled()
        new: list[NewTask] = []
        for index, (task, wish) in enumerate(zip(asked.tasks, asked.wishes, strict=True)):
            if task[0] in self._known:
                settled.new.append(task[0])
                continue
            holder = None if wish is None else self._holder(task, wish, settled)
            if holder is None:
                self._add(task)
                new.append(task)
            elif wish is not None and wish.on_conflict is OnConflict.REJECT:
                settled.conflicts[index] = holder
            else:
                settled.found[index] = holder
        if settled.conflicts:
            for task in new:
                self._take_back(task)
        elif new:
            settled.new += [task[0] for task in new]
            settled.leans = True
        return settled

    def _holder(self, task: NewTask, wish: Wish, settled: Settled) -> Holder | None:
        for other in self._taken.get(slot_of(task), {}).values():
            if (coming := to_be(other)).state in wish.states:
                settled.leans = True
                return coming
        holder = self._holders.get(wanted(task, wish, self._now))
        # What has come by an earlier call is in nobody's way.
        return None if holder is None or holder.id == task[0] else holder

    def _add(self, task: NewTask) -> None:
        self._new[task[0]] = task
        if task[4].unique_key:
            self._taken.setdefault(slot_of(task), {})[task[0]] = task

    def _take_back(self, task: NewTask) -> None:
        del self._new[task[0]]
        if task[4].unique_key:
            del self._taken[slot_of(task)][task[0]]
