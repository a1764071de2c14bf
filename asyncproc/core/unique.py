"""Tasks that are to be the only ones with their key: what becomes of each one that asks for it.

Who holds a key was read from the table, and nobody else adds a holder until what is decided here is committed. Requests
are settled one after the other, and each sees what those before it have come to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from asyncproc.core.asked import CHANGEABLE
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
    REPLACE = "replace"
    """One that waits gets its content; one that does not stands for it as it is."""


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
    replaced: set[int] = field(default_factory=set)
    """Of those that were found, the ones that have its content now."""
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
    options, state = task[2], State.SCHEDULED if task[3] > 0 else State.QUEUED
    return Holder(task[0], State.BLOCKED if task[4].parents else state, options.priority, options.queue)


_Undo: TypeAlias = tuple[dict[TaskId, NewTask], TaskId, NewTask | None]
"""Where a task was put, and what was there before."""


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
        self._replaced: dict[TaskId, NewTask] = {}
        self._stand_ins: dict[TaskId, TaskId] = {}
        """Of tasks that are not made, those that stand for them."""

    def tasks(self) -> list[NewTask]:
        """All that is to be enqueued. What waits for one that is not made waits for the one that stands for it."""
        if not self._stand_ins:
            return list(self._new.values())
        return [self._with_parents(task) for task in self._new.values()]

    def _with_parents(self, task: NewTask) -> NewTask:
        terms = task[4]
        if terms.parents is None:
            return task
        ids = tuple(dict.fromkeys(self._stand_ins.get(parent, parent) for parent in terms.parents.ids))
        refs = terms.parents.refs
        for parent in terms.parents.ids if refs else ():
            if parent in self._stand_ins:
                refs = refs.replace(parent.hex().encode(), self._stand_ins[parent].hex().encode())
        return (*task[:4], terms._replace(parents=terms.parents._replace(ids=ids, refs=refs)))

    def replaced(self) -> list[NewTask]:
        """What tasks in the table are to be from now on, under their own ids."""
        return list(self._replaced.values())

    def settle(self, asked: Asked) -> Settled:
        settled, undo = Settled(), list[_Undo]()
        for index, (task, wish) in enumerate(zip(asked.tasks, asked.wishes, strict=True)):
            holder = None if wish is None or task[0] in self._known else self._holder(task, wish, settled)
            if task[0] in self._known:
                settled.new.append(task[0])
            elif wish is None or holder is None:
                undo += _put(task, self._places(task))
                settled.new.append(task[0])
                settled.leans = True
            elif wish.on_conflict is OnConflict.REJECT:
                settled.conflicts[index] = holder
            elif wish.on_conflict is OnConflict.REPLACE and holder.state in CHANGEABLE:
                content: NewTask = (holder.id, *task[1:])
                undo += _put(content, self._places(content) if holder.id in self._new else [self._replaced])
                settled.found[index] = to_be(content)
                settled.replaced.add(index)
                settled.leans = True
            else:
                settled.found[index] = holder
        self._stand_ins.update((asked.tasks[index][0], holder.id) for index, holder in settled.found.items())
        if settled.conflicts:
            settled.new = []
            for kept, task_id, before in reversed(undo):
                if before is None:
                    del kept[task_id]
                else:
                    kept[task_id] = before
        return settled

    def _holder(self, task: NewTask, wish: Wish, settled: Settled) -> Holder | None:
        for other in self._taken.get(slot_of(task), {}).values():
            if (coming := to_be(other)).state in wish.states:
                settled.leans = True
                return coming
        holder = self._holders.get(wanted(task, wish, self._now))
        # What has come by an earlier call is in nobody's way.
        if holder is None or holder.id == task[0]:
            return None
        content = self._replaced.get(holder.id)
        if content is None:
            return holder
        settled.leans = True
        return to_be(content)

    def _places(self, task: NewTask) -> list[dict[TaskId, NewTask]]:
        """Where a new one is kept."""
        slot = slot_of(task)
        return [self._new, self._taken.setdefault(slot, {})] if slot[1] else [self._new]


def _put(task: NewTask, places: Iterable[dict[TaskId, NewTask]]) -> list[_Undo]:
    undo = [(kept, task[0], kept.get(task[0])) for kept in places]
    for kept, task_id, _ in undo:
        kept[task_id] = task
    return undo
