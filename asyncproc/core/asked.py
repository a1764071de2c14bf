"""What can be asked for tasks that are there already, one by one or many at a time."""

from enum import StrEnum
from typing import Final, NamedTuple

from asyncproc.core.states import DUE_LATER, FINAL, State


class Change(NamedTuple):
    """What becomes of a task that waits; None leaves it as it is."""

    priority: int | None = None
    queue: str | None = None
    ready_at: float | None = None
    """An instant before which it does not run. One that is past makes it due."""
    delay_s: float | None = None
    """The same, from now on: 0 makes it due."""


NO_CHANGE: Final = Change()


class Action(StrEnum):
    """What can be done to all tasks that match a filter."""

    RETRY = "retry"
    CANCEL = "cancel"
    DELETE = "delete"
    CHANGE_PRIORITY = "changePriority"
    MOVE = "move"
    POSTPONE = "postpone"
    RUN_NOW = "runNow"


CHANGES: Final = frozenset({Action.CHANGE_PRIORITY, Action.MOVE, Action.POSTPONE, Action.RUN_NOW})
CHANGEABLE: Final = frozenset({State.QUEUED, *DUE_LATER})
"""States in which a task can be changed. One that is blocked belongs to those it waits for."""


def applies_to(action: Action) -> frozenset[State]:
    """The states of the tasks that an action is for; others that match are skipped."""
    if action is Action.RETRY:
        return frozenset({State.FAILED})
    if action is Action.DELETE:
        return FINAL
    return frozenset(State) - FINAL
