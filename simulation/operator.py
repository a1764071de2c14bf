"""People who change what waits, one task at a time and many at once, while everything else goes wrong."""

from collections.abc import Callable
from functools import partial
from typing import Final

from asyncproc.core.asked import Action, Change
from asyncproc.core.events import BulkAsked, ChangeAsked, Event
from asyncproc.core.states import State
from asyncproc.core.task import Task, TaskId
from simulation.faults import Fault
from simulation.ledger import name
from simulation.network import Link, Network
from simulation.queue_actor import QueueActor
from simulation.scene import Scene

QUEUES: Final = ("mail", "images", "video")


class Operator:
    def __init__(self, scene: Scene, network: Network, find: Callable[[], QueueActor | None]) -> None:
        self._scene = scene
        self._network = network
        self._find = find

    def act(self) -> None:
        nemesis = self._scene.nemesis
        if nemesis.tries(Fault.CHANGED):
            self._change()
        if nemesis.tries(Fault.CHANGED_MANY):
            self._change_many()

    def _change(self) -> None:
        waiting = self._waiting()
        if waiting:
            task_id, change = self._scene.chance.choice(waiting), self._some_change()
            self._scene.say("somebody asks for %s of %s", change, name(task_id))
            self._ask(Fault.CHANGED, [task_id], partial(_one, change))

    def _change_many(self) -> None:
        chance = self._scene.chance
        many = [task_id for task_id in self._waiting() if chance.odds(0.5)]
        many += [task_id for task_id, row in self._scene.table.done.items() if row.state is State.FAILED]
        action = chance.choice((Action.CHANGE_PRIORITY, Action.CHANGE_PRIORITY, Action.CANCEL, Action.RETRY))
        if many:
            if action is Action.CANCEL:
                self._scene.ledger.purged.update(many)
            self._scene.say("somebody asks for %s of %d tasks", action, len(many))
            self._ask(Fault.CHANGED_MANY, many, partial(_many, action, self._some_change()))

    def _ask(self, fault: Fault, ids: list[TaskId], make: Callable[[int, list[Task]], Event]) -> None:
        actor = self._find()
        if actor is None:
            return
        self._scene.nemesis.note(fault)
        self._network.call(
            Link(), actor, lambda actor, back: actor.change(ids, make, back), lambda *_: None, doubled_after=(0.0, 0.05)
        )

    def _waiting(self) -> list[TaskId]:
        return [row.id for row in self._scene.table.live.values() if row.state is not State.RUNNING]

    def _some_change(self) -> Change:
        chance = self._scene.chance
        return chance.choice(
            (
                Change(priority=chance.choice((-3, 0, 4))),
                Change(queue=chance.choice(QUEUES)),
                Change(delay_s=chance.choice((0.0, 0.0, 0.5, 3.0))),
                Change(priority=1, queue=chance.choice(QUEUES), delay_s=0.2),
            )
        )


def _one(change: Change, ticket: int, tasks: list[Task]) -> Event:
    return ChangeAsked(ticket, tasks[0], change)


def _many(action: Action, change: Change, ticket: int, tasks: list[Task]) -> Event:
    return BulkAsked(ticket, action, tasks, change, "cancelled by hand")
