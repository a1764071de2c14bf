"""Whether bounds on what waits are kept to, from the table and the rules that the core was told."""

from math import inf
from typing import Final

from asyncproc.core.crowd import Place, bounded
from asyncproc.core.decision import EnqueueReply, Writes
from asyncproc.core.events import Enqueued
from asyncproc.core.steering import Overflow, Rules
from asyncproc.core.task import TaskId
from simulation.ledger import name
from simulation.rules import Rule, require
from simulation.table import Table

PUSHED: Final = "tasks may wait in queue"


class Crowding:
    def __init__(self) -> None:
        self._before: dict[Place, set[TaskId]] = {}
        self._limits: dict[Place, int] = {}
        self._rejecting: set[str] = set()

    def decided(self, writes: Writes, table: Table, rules: Rules) -> set[TaskId]:
        """Before the commit. Returns the tasks that end because there is no room, which there must not be."""
        self._limits = {}
        self._rejecting = {name for name, queue in bounded(rules).items() if queue.overflow is Overflow.REJECT}
        for queue_name, queue in bounded(rules).items():
            keys = {row.options.concurrency_key for row in table.live.values() if row.queue == queue_name} | {
                "one",
                "two",
            }
            for key in keys | {""}:
                limit = queue.max_waiting_per_key if key else queue.max_waiting
                if limit is not None:
                    self._limits[queue_name, key] = limit
        self._before = {place: _waiting(table, place) for place in self._limits}
        options = {row.id: row.options for row in table.live.values()} | {row.id: row.options for row in writes.inserts}
        pushed = {row[0] for row in writes.overflown} | {row[0] for row in writes.cancelled if PUSHED in row[2]}
        for task_id in pushed:
            places = [(options[task_id].queue, key) for key in ("", options[task_id].concurrency_key)]
            is_full = any(
                self._wanted(place, writes) > self._limits[place] for place in places if place in self._limits
            )
            require(is_full, Rule.ROOM, f"{name(task_id)} is cancelled though there is room")
        return pushed

    def refused(self, event: Enqueued, reply: EnqueueReply, writes: Writes) -> None:
        """A request that is refused leaves nothing behind, and there was no room for it; after `decided`."""
        refused = {task_id for full in reply.full for task_id in full.task_ids}
        if event.whole and reply.full:
            refused |= {task[0] for task in event.tasks} | {task.id for task, _ in event.replaced}
        left = refused & {*(task.id for task in writes.inserts), *(row[0] for row in writes.replaced)}
        require(not left, Rule.ROOM, f"of a refused request there are {', '.join(map(name, left))}")
        used = [key for key, *_, ids in writes.keys if not refused.isdisjoint(ids)]
        require(not used, Rule.ROOM, f"a refused request has used up {used}")
        options = {task[0]: task[2] for task in event.tasks}
        for full in reply.full:
            place = (full.queue, full.key)
            coming = [options[task_id] for task_id in full.task_ids]
            new = sum(own.queue == full.queue and full.key in {"", own.concurrency_key} for own in coming)
            is_full = self._wanted(place, writes) + new > self._limits.get(place, inf)
            require(is_full, Rule.ROOM, f"{name(full.first)} is refused though there is room")
        # Whoever can be told that there is no room is told.
        pushed = {row[0] for row in writes.overflown} & options.keys()
        rejecting = {task_id for task_id in pushed if options[task_id].queue in self._rejecting}
        require(event.requested or not rejecting, Rule.ROOM, f"{rejecting} are cancelled and not refused")

    def _wanted(self, place: Place, writes: Writes) -> int:
        queue, key = place
        new = [task.options for task in writes.inserts if task.queue == queue]
        return len(self._before[place]) + sum(not key or options.concurrency_key == key for options in new)

    def committed(self, writes: Writes, table: Table) -> None:
        """New tasks have room beside those that waited before and still do; what came back may be too many."""
        blocked = {row[0] for row in writes.depends}
        new = {task.id for task in writes.inserts} - blocked
        for place, limit in self._limits.items():
            after = _waiting(table, place)
            stayed = len(after & (self._before[place] | new))
            require(not after & new or stayed <= limit, Rule.ROOM, f"{stayed} wait in {place}, of {limit} that may")


def _waiting(table: Table, place: Place) -> set[TaskId]:
    queue, key = place
    return {row.id for row in table.waiting(queue) if not key or row.options.concurrency_key == key}
