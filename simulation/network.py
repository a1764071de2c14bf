"""Calls between the parties: late, lost, doubled, in any order, and cut off."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from asyncproc.core.decision import Reply
from simulation.faults import Fault
from simulation.queue_actor import Answered, QueueActor
from simulation.scene import Scene

Deliver: TypeAlias = Callable[[QueueActor, Answered], None]

_LATE_S = (0.05, 0.5, 4.0)


@dataclass(slots=True)
class Link:
    """One party's connection. While it is cut, what is under way in it waits."""

    cut_until: float = 0.0
    newest: int = 0
    """Number of the call that arrived last."""
    arrives_at: float = 0.0


class Network:
    def __init__(self, scene: Scene) -> None:
        self.find: Callable[[], QueueActor | None] = lambda: None
        """Who reigns now."""
        self._scene = scene
        self._numbers = count(1)

    def call(
        self,
        link: Link,
        actor: QueueActor,
        deliver: Deliver,
        answered: Answered,
        doubled_after: tuple[float, ...] = (),
        in_order: bool = False,
    ) -> None:
        """`answered` is given None where the caller learns that something went wrong; it may never hear at all.

        `doubled_after`: the call may arrive twice, the second time so many seconds later and with nobody who waits for
        an answer. `in_order`: it does not overtake an earlier one of this link.
        """
        scene, nemesis = self._scene, self._scene.nemesis
        if nemesis.strikes(Fault.MESSAGE_LOST):
            self._fail(link, answered)
            return
        number, wait_s = next(self._numbers), self._delay(Fault.MESSAGE_LATE)
        if in_order:
            wait_s = max(wait_s, link.arrives_at - scene.agenda.now)
            link.arrives_at = scene.agenda.now + wait_s
        back: Answered = self._way_back(link, answered)
        scene.agenda.after(wait_s, self._arrive, link, number, actor, deliver, back)
        if doubled_after and nemesis.strikes(Fault.MESSAGE_DOUBLED):
            wait_s += scene.chance.choice(doubled_after)
            scene.agenda.after(wait_s, self._arrive, link, number, actor, deliver, _to_nobody)

    def _delay(self, late: Fault) -> float:
        chance = self._scene.chance
        return chance.latency() + (chance.choice(_LATE_S) if self._scene.nemesis.strikes(late) else 0.0)

    def _arrive(self, link: Link, number: int, actor: QueueActor, deliver: Deliver, back: Answered) -> None:
        agenda = self._scene.agenda
        if link.cut_until > agenda.now:
            agenda.after(link.cut_until - agenda.now, self._arrive, link, number, actor, deliver, back)
            return
        if number < link.newest:
            self._scene.nemesis.note(Fault.REORDERED)
        link.newest = max(link.newest, number)
        if actor.over and self._scene.chance.odds(0.5):
            # The name is the successor's by now, and the message is for the name.
            actor = self.find() or actor
        if actor.over:
            back(None, actor.epoch)
        else:
            deliver(actor, back)

    def _way_back(self, link: Link, answered: Answered) -> Answered:
        def back(reply: Reply | None, epoch: int) -> None:
            if reply is None or self._scene.nemesis.strikes(Fault.ANSWER_LOST):
                self._fail(link, answered)
            else:
                wait_s = self._delay(Fault.ANSWER_LATE)
                self._scene.agenda.after(wait_s, self._deliver_back, link, answered, reply, epoch)

        return back

    def _fail(self, link: Link, answered: Answered) -> None:
        chance = self._scene.chance
        if self._scene.calm or chance.odds(0.7):
            self._scene.agenda.after(chance.latency(), self._deliver_back, link, answered, None, 0)

    def _deliver_back(self, link: Link, answered: Answered, reply: Reply | None, epoch: int) -> None:
        agenda = self._scene.agenda
        if link.cut_until > agenda.now:
            agenda.after(link.cut_until - agenda.now, self._deliver_back, link, answered, reply, epoch)
        else:
            answered(reply, epoch)


def _to_nobody(reply: Reply | None, epoch: int) -> None:
    pass
