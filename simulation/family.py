"""Tasks that wait for tasks: the real statements as dicts, and what must hold of them."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asyncproc.core.decision import Writes
from asyncproc.core.events import Released
from asyncproc.core.rank import micros_until
from asyncproc.core.states import State
from asyncproc.core.task import NewTask, OnParentFailure, Parents, TaskId
from simulation.rules import Rule, Violation

if TYPE_CHECKING:
    from simulation.chance import Chance
    from simulation.table import Table

MANY = 10_000


@dataclass(slots=True)
class Edges:
    """Of each child the parents that it waits for."""

    most: int = MANY
    """Edges that one commit sees to."""
    open: dict[TaskId, set[TaskId]] = field(default_factory=dict)
    wishes: dict[TaskId, tuple[str, float]] = field(default_factory=dict)
    """Of each child, what is to become of it where a parent fails, and the instant before which it is not to run."""
    ended_with_parents: set[TaskId] = field(default_factory=set)
    untold: set[TaskId] = field(default_factory=set)
    """Released by a commit of which the core has not heard yet."""
    owed: set[TaskId] = field(default_factory=set)
    """Parents of whom it will be told that the next commit is to see to them."""

    def is_parent(self, task_id: TaskId) -> bool:
        return any(task_id in parents for parents in self.open.values())

    def load(self, table: "Table") -> list[TaskId] | None:
        """What a new reign has to see to; None where nobody waits."""
        self.untold.clear()
        self.owed.clear()
        return self._over(table) if self.open else None

    def _over(self, table: "Table") -> list[TaskId]:
        parents = {parent for parents in self.open.values() for parent in parents}
        return sorted(parent for parent in parents if parent not in table.live)

    def settle(self, table: "Table", writes: Writes, now: float, replay: bool) -> Released | None:
        """What one commit does, once its new rows are there."""
        if not replay:
            self.untold.clear()
            self.owed.clear()
        found = self._settle(table, writes, micros_until(now)) if writes.parents else None
        if replay and writes.parents:
            found = Released([], micros_until(now), self._over(table))
        if found is not None:
            self.owed.update(found.owed)
        return found

    def _settle(self, table: "Table", writes: Writes, now: float) -> Released | None:
        for child, parents, policy, _, not_before in writes.depends:
            if (row := table.live.get(child)) is not None and row.state is State.BLOCKED:
                self.open.setdefault(child, set()).update(parents)
                self.wishes[child] = (policy, not_before)
        gone = [row[0] for row in writes.cancelled] + [row[0] for row in writes.overdue]
        for task_id in gone:
            if task_id not in table.live:
                self.open.pop(task_id, None)
        ended, more = self._end(table, writes.parents)
        candidates = [*writes.parents, *ended]
        return Released([], None, candidates) if more else self._release(table, candidates, now)

    def _end(self, table: "Table", parents: Iterable[TaskId]) -> tuple[list[TaskId], bool]:
        reached = [parent for parent in dict.fromkeys(parents) if self._failed(table, parent)]
        ended: list[TaskId] = []
        for parent in reached:
            for child in sorted(self.open):
                if parent in self.open[child] and self._ends_with_parents(table, child) and child not in ended:
                    if len(ended) >= self.most:
                        break
                    ended.append(child)
                    reached.append(child)
        for child in ended:
            fails = self.wishes[child][0] == OnParentFailure.FAIL
            table.finish(child, State.FAILED if fails else State.CANCELLED, b"")
            self.ended_with_parents.add(child)
            del self.open[child]
        return ended, len(ended) >= self.most

    def _failed(self, table: "Table", parent: TaskId) -> bool:
        row = table.done.get(parent)
        return parent not in table.live and (row is None or row.state is not State.SUCCEEDED)

    def _ends_with_parents(self, table: "Table", child: TaskId) -> bool:
        row = table.live.get(child)
        return row is not None and row.state is State.BLOCKED and self.wishes[child][0] != OnParentFailure.RUN

    def _release(self, table: "Table", candidates: list[TaskId], now: float) -> Released | None:
        over = {parent for parent in candidates if parent not in table.live}
        edges = [
            (parent, child) for child in self.open for parent in self.open[child] if self.cuts(parent, child, over)
        ]
        edges = sorted(edges)[: self.most]
        released = []
        for parent, child in edges:
            self.open[child].discard(parent)
        for child in sorted({child for _, child in edges}):
            row = table.live.get(child)
            if not self.open[child]:
                del self.open[child]
                if row is not None and row.state is State.BLOCKED:
                    row.state, row.ready_at = State.SCHEDULED, max(now, self.wishes[child][1])
                    released.append(child)
        self.untold.update(released)
        owed = candidates if len(edges) >= self.most else []
        if not released and not owed:
            return None
        return Released([table.read(table.live[child]) for child in released], None, owed)

    def cuts(self, parent: TaskId, child: TaskId, over: Container[TaskId]) -> bool:
        return parent in over


def together(writes: Writes) -> Iterator[set[TaskId]]:
    """New tasks that wait for each other: they are written together or not at all."""
    new = {task.id for task in writes.inserts}
    for child, parents, *_ in writes.depends:
        yield {child, *(parent for parent in parents if parent in new)}


def nobody_waits_in_vain(table: "Table", owed: Container[TaskId]) -> None:
    """After each commit: a blocked task waits for one that has not ended, or for the next commit."""
    edges = table.edges
    for row in table.live.values():
        if row.state is not State.BLOCKED:
            continue
        parents = edges.open.get(row.id, set())
        if not any(parent in table.live or parent in owed or parent in edges.owed for parent in parents):
            raise Violation(Rule.FAMILY, f"task {int.from_bytes(row.id)} waits for nobody")


def may_start(table: "Table", task: NewTask) -> bool:
    """Its parents have ended, as it wants them to."""
    task_id, *_, terms = task
    parents = terms.parents
    if parents is None or table.revivals[task_id]:
        return True
    ends = [table.ended_as[parent] for parent in parents.ids if parent in table.ended_as]
    if parents.on_failure is OnParentFailure.RUN:
        # One that is not there, because its own row was refused or deleted, is waited for by nobody.
        return all(parent in table.ended_as or parent not in table.live for parent in parents.ids)
    return len(ends) == len(parents.ids) and all(State.SUCCEEDED in states for states in ends)


def some_parents(chance: "Chance", older: list[TaskId]) -> Parents | None:
    if not older or not chance.odds(0.6):
        return None
    ids = dict.fromkeys(chance.choice(older) for _ in range(chance.choice((1, 1, 2, 3))))
    return Parents(tuple(ids), chance.choice(tuple(OnParentFailure)))
