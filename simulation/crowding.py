"""Whether bounds on what waits are kept to, from the table and the rules that the core was told."""

from asyncproc.core.crowd import Place, bounded
from asyncproc.core.decision import Writes
from asyncproc.core.steering import Rules
from asyncproc.core.task import TaskId
from simulation.rules import Rule, require
from simulation.table import Table


class Crowding:
    def __init__(self) -> None:
        self._before: dict[Place, set[TaskId]] = {}
        self._limits: dict[Place, int] = {}

    def decided(self, table: Table, rules: Rules) -> None:
        """Before the commit."""
        self._limits = {}
        for name, queue in bounded(rules).items():
            keys = {row.options.concurrency_key for row in table.live.values() if row.queue == name} | {"one", "two"}
            for key in keys | {""}:
                limit = queue.max_waiting_per_key if key else queue.max_waiting
                if limit is not None:
                    self._limits[name, key] = limit
        self._before = {place: _waiting(table, place) for place in self._limits}

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
