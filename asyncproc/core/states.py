"""The states of a task and every way from one to another, declared once.

The CHECK constraints of the schema, the OpenAPI enum and the filters of the API are compared with this table by tests.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from asyncproc.errors import InvalidTransition


class State(StrEnum):
    """Where a task stands. `failed` is the dead letter."""

    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Trigger(StrEnum):
    """What can happen to a task; the words complete "a <state> task cannot ..."."""

    RELEASE = "be released"
    COME_DUE = "come due"
    POSTPONE = "be postponed"
    CLAIM = "be claimed"
    SUCCEED = "succeed"
    FAIL = "fail and be retried"
    EXHAUST = "fail for good"
    LOSE = "lose its worker"
    SNOOZE = "put itself off"
    EXPIRE = "pass its deadline"
    REPLACE = "be replaced"
    CANCEL = "be cancelled"
    RETRY = "be retried by hand"


FINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
DUE_LATER: Final = frozenset({State.SCHEDULED, State.RETRYING})
"""States that wait for an instant, not for a worker."""

_S, _T = State, Trigger
TRANSITIONS: Final = MappingProxyType(
    {
        (_S.BLOCKED, _T.RELEASE): _S.SCHEDULED,
        (_S.SCHEDULED, _T.COME_DUE): _S.QUEUED,
        (_S.RETRYING, _T.COME_DUE): _S.QUEUED,
        (_S.QUEUED, _T.POSTPONE): _S.SCHEDULED,
        (_S.SCHEDULED, _T.POSTPONE): _S.SCHEDULED,
        (_S.RETRYING, _T.POSTPONE): _S.RETRYING,
        (_S.QUEUED, _T.REPLACE): _S.SCHEDULED,
        (_S.SCHEDULED, _T.REPLACE): _S.SCHEDULED,
        (_S.RETRYING, _T.REPLACE): _S.SCHEDULED,
        (_S.QUEUED, _T.CLAIM): _S.RUNNING,
        (_S.RUNNING, _T.SUCCEED): _S.SUCCEEDED,
        (_S.RUNNING, _T.FAIL): _S.RETRYING,
        (_S.RUNNING, _T.EXHAUST): _S.FAILED,
        (_S.RUNNING, _T.LOSE): _S.QUEUED,
        (_S.RUNNING, _T.SNOOZE): _S.SCHEDULED,
        (_S.QUEUED, _T.EXPIRE): _S.FAILED,
        (_S.SCHEDULED, _T.EXPIRE): _S.FAILED,
        (_S.RETRYING, _T.EXPIRE): _S.FAILED,
        (_S.BLOCKED, _T.EXPIRE): _S.FAILED,
        (_S.FAILED, _T.RETRY): _S.QUEUED,
        **{(state, _T.CANCEL): _S.CANCELLED for state in State if state not in FINAL},
    }
)


def after(state: State, trigger: Trigger) -> State:
    """The state that follows; raises `InvalidTransition` where the table has no entry."""
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise InvalidTransition(state, trigger) from None
