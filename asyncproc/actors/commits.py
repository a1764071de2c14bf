"""Commits whose outcome becomes known whatever happens in between, and whether Postgres is away."""

import asyncio
import logging
from collections.abc import Container
from typing import Final

from asyncproc.actors.inbox import Inbox
from asyncproc.clock import monotonic
from asyncproc.core.decision import (
    BulkReply,
    ChangeReply,
    Decision,
    EnqueueReply,
    PollReply,
    Reply,
    RetryReply,
    TicksReply,
)
from asyncproc.core.events import Lease
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from asyncproc.errors import SchemaTooNew, StorageUnavailable
from asyncproc.storage.batch import build
from asyncproc.storage.cycle import Committed, Storage

log = logging.getLogger(__name__)

SLOW_COMMIT_S: Final = 2.0
"""A commit that takes longer counts as Postgres being away: new requests are refused at once."""
AWAY_AFTER_S: Final = 0.5
"""A connection that is back sooner is nobody's business but ours."""
FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0


class Commits:
    """`away` is why nothing can be committed, empty where it can as far as is known."""

    def __init__(self, storage: Storage, inbox: Inbox) -> None:
        self._storage = storage
        self._inbox = inbox
        self.away = "the reign has not begun"
        self._since: float | None = None

    async def write(self, decision: Decision, now: float) -> Committed:
        """Write until the outcome is known: the core goes on as if it were certain."""
        batch = build(decision.writes, now) if decision.writes else None
        if batch is None and not decision.pages:
            return Committed()
        replay, wait_s = False, FIRST_RETRY_S
        self._since = since = monotonic()
        while True:
            try:
                committed = await self._storage.commit(
                    batch, decision.pages, replay, decision.payloads, decision.checkpoints
                )
            except StorageUnavailable as error:
                replay = True
                if monotonic() - since > AWAY_AFTER_S:
                    self.now_away(error)
                    self._give_up(decision, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LAST_RETRY_S)
            else:
                self.away, self._since = "", None
                return committed

    def now_away(self, error: StorageUnavailable | SchemaTooNew) -> None:
        cause = error.cause if isinstance(error, StorageUnavailable) else str(error)
        if cause != self.away:
            log.warning("%s", error)
        self.away = cause
        self._inbox.refuse_requests(StorageUnavailable(cause))

    def _give_up(self, decision: Decision, error: StorageUnavailable) -> None:
        """Tell clients whose tasks are in the open transaction that the outcome is unknown."""
        for reply in decision.replies:
            if isinstance(reply, EnqueueReply | RetryReply | ChangeReply | BulkReply | TicksReply):
                self._inbox.refuse(reply.ticket, error)

    def why_away(self) -> str:
        """Why nothing can be committed now; empty where it can."""
        if not self.away and self._since is not None:
            taken_s = monotonic() - self._since
            if taken_s > SLOW_COMMIT_S:
                return f"a commit takes {taken_s:.0f} s already"
        return self.away


def completed(lease: Lease, committed: Committed) -> Lease:
    """With what was read for it after the commit."""
    task_id, number, attempt, type_name, queue, payload, rank, limits, is_confined, *_ = lease
    payload = committed.payloads.get(task_id, payload)
    granted = (task_id, number, attempt, type_name, queue, payload, rank, limits, is_confined)
    checkpoint = committed.checkpoints.get(task_id)
    return granted if checkpoint is None else (*granted, checkpoint)


def correct(reply: Reply, unwritten: Container[TaskId]) -> None:
    """Take from an answer what the table did not agree to."""
    if isinstance(reply, PollReply) and reply.leases:
        reply.leases = [lease for lease in reply.leases if lease[0] not in unwritten]
    elif isinstance(reply, RetryReply) and reply.task_id in unwritten:
        # Somebody else's retry came first: the row is not among the failed any more.
        reply.refused = State.QUEUED
    elif isinstance(reply, EnqueueReply) and reply.replaced:
        reply.stale = any(task_id in unwritten for task_id in reply.replaced)
    elif isinstance(reply, ChangeReply) and reply.task_id in unwritten:
        reply.stale = True
    elif isinstance(reply, BulkReply):
        reply.stale += [task_id for task_id in reply.done if task_id in unwritten]
        reply.done = [task_id for task_id in reply.done if task_id not in unwritten]
