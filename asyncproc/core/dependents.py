"""Tasks that wait for tasks: blocked until the last of their parents has ended.

Which those are the table alone knows. The core says in each commit which tasks ended with it, the same commit releases
whoever waited for nothing else, and those come back as tasks that are due.
"""

from collections.abc import Iterator
from typing import Final

from asyncproc.core.backlog import Backlog
from asyncproc.core.decision import Writes
from asyncproc.core.events import Released
from asyncproc.core.states import State
from asyncproc.core.task import Task, TaskId

UNTIL_RELEASED: Final = 253_370_764_800.0
"""The `ready_at` of a blocked task, in the year 9999: behind all that will come due, so that no page reads past it."""


class Dependents:
    """`any` is whether there may be a task that waits for others: where there never was one, nothing is asked."""

    def __init__(self) -> None:
        self.any = False
        self.owed: list[TaskId] = []
        """Parents that have ended, to whose children the next commit sees."""

    def block(self, task: Task, writes: Writes) -> None:
        """A new task with parents: on disk alone until they have ended."""
        parents = task.terms.parents
        if parents is None:
            raise AssertionError("a task without parents is not blocked")
        self.any = True
        writes.depends.append((task.id, parents.ids, parents.on_failure, parents.refs, task.ready_at))
        task.state, task.ready_at = State.BLOCKED, UNTIL_RELEASED
        task.terms = task.terms._replace(parents=None)

    def owe(self, parents: list[TaskId] | None) -> None:
        """Parents that the last reign may have left without seeing to their children; None where nobody waits."""
        if parents is not None:
            self.any = True
            self.owed += parents

    def take(self, event: Released, backlog: Backlog) -> None:
        self.owed += event.owed
        for task in event.tasks:
            if task.id not in backlog.tasks:
                backlog.defer(task)
        if event.since is not None:
            backlog.overlook(event.since)

    def close(self, writes: Writes) -> None:
        """Once all else is decided: whose children are to be looked at in this commit."""
        if self.any:
            writes.parents.extend(dict.fromkeys(self._may_have_ended(writes)))
            self.owed = []

    def _may_have_ended(self, writes: Writes) -> Iterator[TaskId]:
        yield from self.owed
        for rows in (writes.succeeded, writes.failed, writes.overdue, writes.cancelled, writes.overflown):
            for row in rows:
                yield row[0]
        for depend in writes.depends:
            yield from depend[1]
