"""What the tables know of schedules."""

from collections.abc import Container
from dataclasses import dataclass, field

from asyncproc.core.decision import Writes
from asyncproc.core.schedule import Position, Tick
from asyncproc.core.task import TaskId


@dataclass(slots=True)
class Ticks:
    rows: dict[TaskId, tuple[str, float, str, str]] = field(default_factory=dict)
    """Schedule, instant, kind, outcome."""
    positions: dict[str, tuple[str, float, TaskId | None]] = field(default_factory=dict)

    def apply(self, writes: Writes) -> None:
        for task_id, name, due_at, kind, outcome, _ in writes.ticks:
            if self.rows.get(task_id, ("", 0.0, "", "waiting"))[3] == "waiting":
                self.rows[task_id] = (name, due_at, kind, outcome)
        for name in writes.positions_over:
            self.positions.pop(name, None)
        self.positions.update((name, (stamp, at, task_id)) for name, stamp, at, task_id in writes.positions)

    def found(self, live: Container[TaskId]) -> tuple[dict[str, Position], list[tuple[str, Tick]]]:
        positions = {
            name: Position(stamp, at, task_id, task_id in live) for name, (stamp, at, task_id) in self.positions.items()
        }
        waiting = [
            (name, Tick(task_id, due_at, kind))  # type: ignore[arg-type]
            for task_id, (name, due_at, kind, outcome) in self.rows.items()
            if outcome == "waiting"
        ]
        return positions, sorted(waiting, key=lambda found: (found[1].due_at, found[1].task_id))

    def of(self, name: str, outcome: str = "task") -> list[float]:
        """The instants of the ticks with such an outcome, in the order in which they were decided."""
        return [row[1] for row in self.rows.values() if (row[0], row[3]) == (name, outcome)]
