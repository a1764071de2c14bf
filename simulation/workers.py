"""Workers: they register, ask, run, report, and hold each outcome until it is recorded."""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from asyncproc.core.decision import PollReply, RegisterReply, Reply
from asyncproc.core.events import KILLED, Lease, Note, Outcome, Polled, Registered
from asyncproc.core.line import Line
from asyncproc.core.task import NewTask, TaskId
from simulation.faults import Fault
from simulation.ledger import Run, name
from simulation.network import Link, Network
from simulation.queue_actor import QueueActor
from simulation.rules import Rule, require
from simulation.scene import Scene

MARGIN_S: Final = 3.0
"""How long after the end of a poll its answer is waited for."""
FLUSH_S: Final = 0.005
MAX_CALLS: Final = 3
SECONDS: Final = {"Tiny": (0.0002, 0.001), "Short": (0.01, 0.05), "Long": (0.3, 3.0)}
"""How long attempts take, by type."""
OUTLIERS: Final = 0.05
"""Share of attempts that take long whatever their type."""
NOTES: Final = 3
"""An attempt leaves fewer checkpoints."""
BURSTS: Final = 0.2
"""A task that takes even the process around its own along, with the memory of the machine, say."""


@dataclass(slots=True)
class Holding:
    """A lease aboard."""

    lease: int
    run: Run | None = None
    outcome: Outcome | None = None
    sent: bool = False
    noted: int = 0
    """Number of its last note, which has its checkpoint."""
    recorded: int = 0
    """Number of the last note that is known to be on record."""
    note_sent: bool = False

    def checkpoint(self) -> bytes:
        return b"%d.%d" % (self.lease, self.noted)


@dataclass(slots=True, eq=False)
class Company:
    """Leases of one type that run in one call, in one slot."""

    type: str
    leases: list[Lease]
    room: int
    begun: bool = False
    left: int = 0
    seconds: float = 0.0


class Worker:
    def __init__(
        self,
        scene: Scene,
        network: Network,
        identity: tuple[str, str, int],
        find: Callable[[], QueueActor | None],
        make_child: Callable[[TaskId, bytes], NewTask],
    ) -> None:
        self.name, self.pool, self.concurrency = identity
        self.alive = True
        self.known_dead = False
        self.types: tuple[str, ...] | None = None
        self.patient = scene.settings.longest_poll_s > scene.settings.poll_s and len(self.name) % 2 == 1
        """Others are of a release before, which gives up a poll that is not answered soon."""
        self.link = Link()
        self.kills: Callable[[Worker, Fault], None] = lambda worker, fault: None
        self._scene = scene
        self._network = network
        self._find = find
        self._make_child = make_child
        self._actor: QueueActor | None = None
        self._epoch = 0
        self._session: int | None = None
        self._talk = 0
        """Number of the present conversation; what belongs to an earlier one is not listened to."""
        self._calls: dict[int, list[tuple[TaskId, int]]] = {}
        self._notes: dict[int, list[Note]] = {}
        """What the calls say of tasks that noted something."""
        self._numbers = count()
        self._held: dict[TaskId, Holding] = {}
        self._line = Line()
        self._back: list[tuple[TaskId, int]] = []
        """Leases that were called back before they began. They are sent once."""
        self._leaving = False
        self._finishes = False
        self._told: set[int] = set()
        """Calls that say that it leaves."""
        self._known_to_leave = False
        self._running = 0
        self._batching = scene.batching if scene.chance.odds(0.8) else {}
        self._open: dict[str, Company] = {}
        """Those that wait for others to join them."""
        scene.agenda.after(scene.chance.latency(), self._register, self._talk)

    # ---- the conversation

    def hang_up(self, forget_actor: bool = False) -> None:
        """Whatever is under way, its fate is unknown from here on: register anew."""
        if forget_actor or self._scene.chance.odds(0.3):
            self._actor = None
        self._talk += 1
        self._session = None
        self._calls.clear()
        self._notes.clear()
        self._back.clear()
        self._scene.agenda.after(0.05 + 0.1 * self._scene.chance.random(), self._register, self._talk)

    def _reach(self) -> QueueActor | None:
        """A handle reaches the successor of a QueueActor that ended, and the session is that of before."""
        if self._actor is None or self._actor.over:
            self._actor = self._find()
        return self._actor

    def _register(self, talk: int) -> None:
        if not self.alive or talk != self._talk:
            return
        actor = self._reach()
        if actor is None:
            self.hang_up()
            return
        held = [(task_id, holding.lease) for task_id, holding in self._held.items()]
        types = self.types
        self._scene.say("%s registers at %s with %s", self.name, actor.name, held)
        self._network.call(
            self.link,
            actor,
            lambda actor, back: actor.ask(
                lambda ticket: Registered(
                    ticket, self.name, self.pool, self.concurrency, held, types, self._batching, self.patient
                ),
                back,
            ),
            partial(self._registered, talk),
            doubled_after=(0.0, 0.1, 0.5, 1.5, 3.0),
        )
        self._scene.agenda.after(self._scene.settings.poll_s + MARGIN_S, self._deadline, talk, None)

    def _registered(self, talk: int, reply: Reply | None, epoch: int) -> None:
        if not self.alive or talk != self._talk or self._session is not None:
            return
        if not isinstance(reply, RegisterReply) or not self.trusts(epoch):
            self.hang_up(forget_actor=reply is not None)
            return
        self._epoch = epoch
        self._session = reply.session
        for task_id in reply.dropped:
            self._held.pop(task_id, None)
        for holding in self._held.values():
            holding.sent = holding.note_sent = False
        self._scene.say("%s has session %d, drops %s", self.name, reply.session, reply.dropped)
        self._converse()
        self._go_if_done()

    def trusts(self, epoch: int) -> bool:
        return epoch >= self._epoch

    def _converse(self) -> None:
        """Keep one call open that asks for leases; report what ended in another one."""
        if not self.alive or self._session is None:
            return
        doubles = self._scene.nemesis.strikes(Fault.REPORT_DOUBLED) if any(self._calls.values()) else False
        outcomes = [
            holding.outcome
            for holding in self._held.values()
            if holding.outcome is not None and (doubles or not holding.sent)
        ][: self._scene.chance.choice((2, 20))]
        asks = not self._calls and not self._known_to_leave
        notes = any(holding.noted > holding.recorded and not holding.note_sent for holding in self._held.values())
        if asks or ((outcomes or self._back or notes) and len(self._calls) < MAX_CALLS):
            back = list(self._back)
            if not (back and self._scene.nemesis.strikes(Fault.RETURN_DOUBLED)):
                self._back.clear()
            self.poll(outcomes, back)

    def poll(self, outcomes: list[Outcome], back: list[tuple[TaskId, int]]) -> None:
        assert self._session is not None
        scene, session, number = self._scene, self._session, next(self._numbers)
        actor = self._reach()
        if actor is None:
            self.hang_up()
            return
        notes = self._notes[number] = self._take_notes({outcome[0] for outcome in outcomes})
        make = partial(self._make_poll, session, self._epoch, outcomes, back, self._leaving, notes)
        if self._leaving:
            self._told.add(number)
        self._calls[number] = [(outcome[0], outcome[1]) for outcome in outcomes]
        for outcome in outcomes:
            self._held[outcome[0]].sent = True
        self._network.call(
            self.link,
            actor,
            lambda actor, answer: actor.ask(make, answer),
            partial(self._polled, self._talk, number),
        )
        runs = any(holding.outcome is None for holding in self._held.values())
        waits = self.patient and not (runs or outcomes or back or notes or self._leaving)
        patience_s = (scene.settings.longest_poll_s if waits else scene.settings.poll_s) + MARGIN_S
        if scene.nemesis.strikes(Fault.IMPATIENCE):
            patience_s = scene.chance.choice((0.003, 0.01, 0.5))
        scene.agenda.after(patience_s, self._deadline, self._talk, number)

    def _make_poll(
        self,
        session: int,
        epoch: int,
        outcomes: list[Outcome],
        back: list[tuple[TaskId, int]],
        leaving: bool,
        notes: list[Note],
        ticket: int,
    ) -> Polled:
        self._scene.epochs[ticket] = epoch
        return Polled(ticket, self.name, session, outcomes, back, leaving, notes)

    def _take_notes(self, ended: Container[TaskId]) -> list[Note]:
        """What is not known to be on record, once, and again with the end."""
        notes: list[Note] = []
        for task_id, holding in self._held.items():
            if holding.noted > holding.recorded and (task_id in ended or not holding.note_sent):
                holding.note_sent = True
                notes.append((task_id, holding.lease, holding.noted, None, holding.checkpoint(), None))
        return notes

    def _polled(self, talk: int, number: int, reply: Reply | None, epoch: int) -> None:
        if not self.alive or talk != self._talk or number not in self._calls:
            return
        reported, notes = self._calls.pop(number), self._notes.pop(number)
        if not isinstance(reply, PollReply) or reply.leases is None or not self.trusts(epoch):
            self.hang_up(forget_actor=reply is not None and not self.trusts(epoch))
            return
        self._epoch = epoch
        for task_id, lease, noted, *_ in notes:
            if self.holds(task_id, lease):
                self._held[task_id].recorded = max(self._held[task_id].recorded, noted)
        for task_id, lease in reported:
            if self.holds(task_id, lease):
                del self._held[task_id]
        for granted in reply.leases:
            self._held[granted[0]] = Holding(granted[1])
        self._line.put(self._join(reply.leases))
        self._known_to_leave = self._known_to_leave or number in self._told
        if self._leaving:
            self._let_go()
        self._give_back(reply.recalled)
        self._work()
        self._converse()
        self._go_if_done()

    def _give_back(self, recalled: list[tuple[TaskId, int]]) -> None:
        for task_id, lease in recalled:
            if self.may_return(task_id, lease):
                self._scene.nemesis.note(Fault.RECALLED)
                del self._held[task_id]
                self._back.append((task_id, lease))

    def may_return(self, task_id: TaskId, lease: int) -> bool:
        return self.holds(task_id, lease) and self._held[task_id].run is None

    def holds(self, task_id: TaskId, lease: int) -> bool:
        return task_id in self._held and self._held[task_id].lease == lease

    def forget(self, ids: Iterable[TaskId]) -> None:
        for task_id in ids:
            del self._held[task_id]

    def _deadline(self, talk: int, number: int | None) -> None:
        waits = self._session is None if number is None else number in self._calls
        if self.alive and talk == self._talk and waits:
            self.hang_up()

    # ---- the work

    def _work(self) -> None:
        for company in list(self._open.values()):
            if not company.room:
                self._begin_together(company)
        while self.alive and self._running < self.concurrency and self._line:
            lease = self._line.pop()
            if self.begins(lease[0], lease[1]):
                if lease[3] in self._batching and not lease[8]:
                    self._gather(lease)
                else:
                    self._start(lease)

    def _join(self, leases: list[Lease]) -> list[Lease]:
        others: list[Lease] = []
        for lease in leases:
            company = None if lease[8] else self._open.get(lease[3])
            if company is not None and company.room:
                company.leases.append(lease)
                company.room -= 1
            else:
                others.append(lease)
        return others

    def _gather(self, first: Lease) -> None:
        size, wait_s = self._batching[first[3]]
        leases = [first, *self._line.take_alike(first[3], size - 1)]
        company = Company(first[3], leases, size - len(leases))
        self._running += 1
        if company.room and wait_s and first[3] not in self._open:
            self._open[first[3]] = company
            self._scene.agenda.after(wait_s, self._begin_together, company)
        else:
            self._begin_together(company)

    def _begin_together(self, company: Company) -> None:
        if not self.alive or company.begun:
            return
        company.begun = True
        if self._open.get(company.type) is company:
            del self._open[company.type]
        leases = [lease for lease in company.leases if self.begins(lease[0], lease[1])]
        company.seconds = self._scene.chance.uniform(*SECONDS[company.type])
        company.left = len(leases)
        if len(leases) > 1:
            self._scene.nemesis.note(Fault.TOGETHER)
        for lease in leases:
            if self.alive:
                self._start(lease, company)
        if not leases:
            self._running -= 1
            self._work()

    def begins(self, task_id: TaskId, lease: int) -> bool:
        """It may have been dropped or returned while it waited for a slot."""
        return self.holds(task_id, lease)

    def _start(self, lease: Lease, company: Company | None = None) -> None:
        scene, task_id = self._scene, lease[0]
        scene.say("%s starts %s, attempt %d, lease %d", self.name, name(task_id), lease[2], lease[1])
        require(self.types is None or lease[3] in self.types, Rule.KNOWN, f"{name(task_id)} starts on {self.name}")
        run = scene.ledger.started(lease, self.name)
        if self.holds(task_id, lease[1]):
            self._held[task_id].run = run
        is_poison = task_id in scene.poison
        if is_poison and (not lease[8] or scene.chance.odds(BURSTS)):
            self.kills(self, Fault.POISON)
            return
        if company is None:
            self._running += 1
            seconds = scene.chance.uniform(*SECONDS["Long" if scene.chance.odds(OUTLIERS) else lease[3]])
        else:
            seconds = company.seconds
        scene.agenda.after(seconds, self._end, task_id, lease[1], run, seconds, is_poison, company)
        # Without a draw: the histories of before stay what they were.
        for part in range((int.from_bytes(task_id) + lease[1]) % NOTES):
            scene.agenda.after(seconds * (part + 1) / NOTES, self._note, task_id, lease[1], run)

    def _note(self, task_id: TaskId, lease: int, run: Run) -> None:
        if self.alive and self.holds(task_id, lease):
            holding = self._held[task_id]
            holding.noted += 1
            holding.note_sent = False
            run.checkpoint = holding.checkpoint()
            self._converse()

    def _end(
        self, task_id: TaskId, lease: int, run: Run, seconds: float, is_poison: bool, company: Company | None
    ) -> None:
        if not self.alive:
            return
        if company is None:
            self._running -= 1
        else:
            seconds /= len(company.leases)
            company.left -= 1
            self._running -= not company.left
        outcome = self._killed(task_id, lease, seconds) if is_poison else self._outcome(task_id, lease, seconds)
        self._scene.say("%s ends %s, lease %d: %s", self.name, name(task_id), lease, outcome[2])
        self._scene.ledger.ended(run, outcome)
        if self.holds(task_id, lease):
            self._held[task_id].outcome = outcome
        self._work()
        self._scene.agenda.after(FLUSH_S, self._converse)

    def _killed(self, task_id: TaskId, lease: int, seconds: float) -> Outcome:
        """It took the process of its own along that it ran in."""
        spread = self._scene.chance.uniform(-1, 1)
        return (task_id, lease, KILLED, b"failure %d" % lease, "its process was killed", seconds, spread, [])

    def _outcome(self, task_id: TaskId, lease: int, seconds: float) -> Outcome:
        chance = self._scene.chance
        if chance.odds(0.25):
            return (task_id, lease, False, b"failure %d" % lease, "ValueError: no", seconds, chance.uniform(-1, 1), [])
        result = b"result %d" % lease
        children = [self._make_child(task_id, result)] if chance.odds(0.08) else []
        return (task_id, lease, True, result, "", seconds, 0.0, children)

    # ---- its end

    def leave(self, finishes: bool) -> None:
        """Take nothing more and be gone: soon, or once all has ended that runs."""
        self._leaving, self._finishes = True, finishes
        self._let_go()
        self._converse()

    def _let_go(self) -> None:
        gathered = [lease for company in self._open.values() for lease in company.leases]
        for lease in [*self._line.take(), *gathered]:
            if self.may_return(lease[0], lease[1]):
                del self._held[lease[0]]
                self._back.append((lease[0], lease[1]))

    def _go_if_done(self) -> None:
        if not self._known_to_leave or self._back:
            return
        if not any(self._finishes or holding.outcome is not None for holding in self._held.values()):
            self.kills(self, Fault.LEAVING)

    def last_word(self) -> None:
        """Report what has ended, and be gone before the answer comes."""
        self._converse()

    def die(self) -> None:
        self.alive = False
        self._scene.say("%s dies", self.name)
