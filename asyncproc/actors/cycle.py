"""The cycle: gather, decide, commit, answer. One commit for all that came together, and no answer before it."""

from typing import NoReturn

from asyncproc import failpoints
from asyncproc.actors.commits import Commits, completed, correct
from asyncproc.actors.inbox import Inbox
from asyncproc.actors.overflow import Counting
from asyncproc.clock import AnchoredClock, monotonic
from asyncproc.core.decision import PollReply
from asyncproc.core.events import Enqueued, Event, Refused
from asyncproc.core.step import Core
from asyncproc.core.task import TaskId
from asyncproc.errors import TasksRejected


class Cycle:
    """Turns as long as the reign lasts, with the core to itself."""

    def __init__(self, core: Core, inbox: Inbox, commits: Commits, counting: Counting, clock: AnchoredClock) -> None:
        self._core = core
        self._inbox = inbox
        self._commits = commits
        self._counting = counting
        self._clock = clock

    async def run(self, events: list[Event]) -> NoReturn:
        """Ends with what ends the reign only: `EpochLost`, or what is wrong with this code."""
        # First by itself: only once the rules and the schedules are known can be said what is full.
        events, wake_at = await self._turn(events)
        while True:
            if not events:
                timeout_s = None if wake_at is None else max(0.0, wake_at - self._clock.now())
                events = await self._inbox.gather(timeout_s)
            else:
                events += self._inbox.take()
            events, wake_at = await self._turn(events)

    async def _turn(self, events: list[Event]) -> tuple[list[Event], float | None]:
        """One turn; returns the events that follow from it and the instant to turn again at the latest."""
        core = self._core
        now, since = self._clock.now(), monotonic()
        failpoints.hit("queue.after_receive")
        events = await self._counting.told(core, events, now)
        decision = core.step(events, now)
        failpoints.hit("queue.after_decision")
        committed = await self._commits.write(decision, now)
        self._inbox.pace(monotonic() - since)
        # A row that went between its claim and the reading of its payload is refused like one that was never claimed.
        unread = [task_id for task_id in decision.payloads if task_id not in committed.payloads]
        unread += [task_id for task_id in decision.checkpoints if task_id not in committed.checkpoints]
        unwritten = {*committed.refused, *committed.rejected, *unread}
        if committed.rejected:
            self._refuse_tasks(events, committed.rejected)
        for reply in decision.replies:
            if unwritten:
                correct(reply, unwritten)
            if (committed.payloads or committed.checkpoints) and isinstance(reply, PollReply) and reply.leases:
                reply.leases = [completed(lease, committed) for lease in reply.leases]
            self._inbox.answer(reply)
        failpoints.hit("queue.after_answer")
        core.answered(self._clock.now())
        follow_up: list[Event] = [Refused([*unwritten])] if unwritten else []
        if committed.released is not None:
            follow_up.append(committed.released)
        return [*follow_up, *committed.pages], decision.wake_at

    def _refuse_tasks(self, events: list[Event], rejected: dict[TaskId, str]) -> None:
        """Tell whoever enqueued a task that Postgres will not have; its neighbours are committed."""
        for event in events:
            if isinstance(event, Enqueued):
                tasks = [*event.tasks, *(new for _, new in event.replaced)]
                causes = {task[0]: rejected[task[0]] for task in tasks if task[0] in rejected}
                if causes:
                    self._inbox.refuse(event.ticket, TasksRejected(causes))
