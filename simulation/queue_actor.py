"""A QueueActor in simulated time: it gathers, decides, commits and answers as the real one does, and may end at any
point between."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from asyncproc.core.dangers import TAKEN_ALONG
from asyncproc.core.decision import BulkReply, ChangeReply, Decision, EnqueueReply, PollReply, Reply, RetryReply
from asyncproc.core.events import (
    BulkAsked,
    ChangeAsked,
    Draining,
    Enqueued,
    Event,
    Occupied,
    Refused,
    RetryAsked,
    RulesChanged,
    SchedulesChanged,
    WorkerLost,
)
from asyncproc.core.overflow import crowds
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.task import NewTask, Task, TaskId
from asyncproc.core.unique import Asked, Holder, Settling, Wish, slot_of, wanted
from asyncproc.errors import EpochLost
from simulation.faults import Fault
from simulation.referee import Referee
from simulation.requests import Requests
from simulation.rules import Rule, require
from simulation.scene import Scene
from simulation.table import Committed

Answered: TypeAlias = Callable[[Reply | None, int], None]
"""Is given the answer, or None where there is none, and the epoch of whom it comes from."""

Read: TypeAlias = Callable[[], list[Task]]
Make: TypeAlias = Callable[[int, list[Task]], Event | None]

AWAY_AFTER_S: Final = 0.5
_OF_CLIENTS: Final = (EnqueueReply, RetryReply, ChangeReply, BulkReply)
_OF_PEOPLE: Final = (Enqueued, RetryAsked, ChangeAsked, BulkAsked)
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0


@dataclass(slots=True)
class KeyedReply(EnqueueReply):
    """The tasks that the first request with the key has made."""

    ids: tuple[TaskId, ...] = ()


def went(reply: Reply | None) -> bool:
    """Whether an enqueue was neither refused nor is to be tried anew."""
    return isinstance(reply, EnqueueReply) and not reply.stale and not reply.full


class QueueActor:
    def __init__(
        self, scene: Scene, number: int, living: Callable[[], set[str]], ended: Callable[["QueueActor"], None]
    ) -> None:
        self.name = f"QueueActor {number}"
        self.epoch = 0
        self.over = False
        self.scene = scene
        self._living = living
        self._ended = ended
        self._core: Core | None = None
        self._referee: Referee | None = None
        self._inbox: list[Event] = []
        self._waiting: dict[int, Answered] = {}
        self._follow_up: list[Event] = []
        self._flights: dict[str, list[Answered]] = {}
        """Who waits for the request that is under way for a key."""
        self._exchanges: list[tuple[Read, Make, Answered]] = []
        """Changes that were asked for; the first is under way."""
        self._repeated: set[TaskId] = set()
        """Tasks that came by a repeated call."""
        self._settled: dict[int, tuple[TaskId, ...]] = {}
        """The tasks that the answers to unique ones will name."""
        self._new: dict[int, list[TaskId]] = {}
        """What each enqueue call of this cycle brought."""
        self._busy = True
        self._away = True
        """Nothing can be committed, and clients are refused at once: a call that waited here could come after its
        repetition was served by another."""
        self._wakes = 0
        self._decided_at = 0.0
        scene.agenda.after(scene.chance.latency(), self._take_over)

    # ---- what is called

    def ask(self, make: Callable[[int], Event | None], answered: Answered) -> None:
        """Post the event made for a new ticket; where there is none to make, the call is over."""
        ticket = next(self.scene.tickets)
        event = make(ticket)
        if event is None:
            answered(None, self.epoch)
            return
        self._waiting[ticket] = answered
        self.post(event)

    def enqueue(self, tasks: list[NewTask], again: bool, answered: Answered) -> None:
        if self._away:
            answered(None, self.epoch)
        elif not again:
            self.ask(lambda ticket: Enqueued(ticket, tasks), answered)
        else:
            # The earlier call may be on its way to its commit right now.
            self.ask(lambda ticket: Enqueued(ticket, []), partial(self._enqueue_missing, tasks, answered))

    def _enqueue_missing(self, tasks: list[NewTask], answered: Answered, flushed: Reply | None, _: int) -> None:
        table = self.scene.table
        missing = [task for task in tasks if task[0] not in table.live and task[0] not in table.done]
        if flushed is None or self.over:
            answered(None, self.epoch)
        elif missing:
            self.ask(lambda ticket: Enqueued(ticket, missing), answered)
        else:
            answered(EnqueueReply(flushed.ticket), self.epoch)

    def enqueue_once(self, key: str, tasks: list[NewTask], answered: Answered) -> None:
        """What is under way for its key is waited for; the rest is looked up, and committed where it is not there."""
        if self._away:
            answered(None, self.epoch)
        elif waiting := self._flights.get(key):
            waiting.append(answered)
        else:
            self._flights[key] = [answered]
            self.scene.agenda.after(self.scene.chance.latency(), self._look_up, key, tasks)

    def _look_up(self, key: str, tasks: list[NewTask]) -> None:
        known = self.known(key)
        if self.over:
            return
        if self.scene.away_until > self.scene.agenda.now:
            self._landed(key, None)
        elif known is not None:
            self._landed(key, KeyedReply(0, ids=known))
        else:
            ids = [task[0] for task in tasks]
            used = (key, b"", b"", 0.0, ids)
            reply = KeyedReply(0, ids=tuple(ids))
            self.ask(
                lambda ticket: Enqueued(ticket, tasks, [used]),
                lambda enqueued, _: self._landed(key, reply if went(enqueued) else None),
            )

    def known(self, key: str) -> tuple[TaskId, ...] | None:
        return self.scene.table.keys.get(key)

    def _landed(self, key: str, reply: "KeyedReply | None") -> None:
        for answered in self._flights.pop(key, ()):
            answered(reply, self.epoch)

    def retry(self, task_id: TaskId, answered: Answered) -> None:
        row = None if self._away else self.scene.table.copy_of_failed(task_id)
        if row is not None and row.terms.unique_key:
            self.change([task_id], lambda ticket, rows: RetryAsked(ticket, rows[0]), answered)
            return
        self.ask(lambda ticket: None if row is None else RetryAsked(ticket, row), answered)

    def change(self, ids: list[TaskId], make: Callable[[int, list[Task]], Event], answered: Answered) -> None:
        """Read the rows and ask for a change."""
        table = self.scene.table
        self.exchange(
            lambda: table.whose_keys_are_free(table.copies(ids)),
            lambda ticket, rows: make(ticket, rows) if rows else None,
            answered,
        )

    def exchange(self, read: Read, make: Make, answered: Answered) -> None:
        """Read, and ask for something accordingly, one such exchange after the other."""
        self._exchanges.append((read, make, answered))
        if len(self._exchanges) == 1:
            self._read()

    def enqueue_unique(self, tasks: list[NewTask], wish: Wish, again: bool, answered: Answered) -> None:
        """Look who has the key of the first one, and decide accordingly."""
        if again:
            self._repeated.update(task[0] for task in tasks)
        slot = slot_of(tasks[0])
        self.exchange(lambda: self.scene.table.holding(slot), partial(self._settle, tasks, wish), self._named(answered))

    def _settle(self, tasks: list[NewTask], wish: Wish, ticket: int, rows: list[Task]) -> Event:
        table, now = self.scene.table, self.scene.agenda.now
        known = {task[0] for task in tasks} & self._repeated & {*table.live, *table.done}
        holders = {
            wanted(tasks[0], wish, now): Holder(row.id, row.state, row.options.priority, row.queue) for row in rows[:1]
        }
        settling = Settling(holders, known, now)
        settled = settling.settle(Asked(tasks, [wish, *[None] * (len(tasks) - 1)]))
        self._settled[ticket] = tuple(settled.ids())
        if settled.found or settled.conflicts:
            self.scene.nemesis.note(Fault.FOUND)
        if settled.replaced:
            self.scene.nemesis.note(Fault.REPLACED)
        replaced = [(rows[0], new) for new in settling.replaced()]
        return Enqueued(ticket, settling.tasks(), replaced=replaced, whole=True)

    def _named(self, answered: Answered) -> Answered:
        def name_them(reply: Reply | None, epoch: int) -> None:
            ids = () if reply is None else self._settled.pop(reply.ticket)
            answered(KeyedReply(0, ids=ids) if went(reply) else None, epoch)

        return name_them

    def _read(self) -> None:
        read, make, answered = self._exchanges[0]
        rows = None if self.blind() else read()
        self.scene.agenda.after(self.scene.chance.latency() / 2, self._exchange, make, rows, answered)

    def blind(self) -> bool:
        """Whether the last commit may be unknown still."""
        return self._away

    def _exchange(self, make: Make, rows: list[Task] | None, answered: Answered) -> None:
        if not self.over:
            self.ask(lambda ticket: None if rows is None else make(ticket, rows), partial(self._exchanged, answered))

    def _exchanged(self, answered: Answered, reply: Reply | None, epoch: int) -> None:
        self._exchanges.pop(0)
        answered(reply, epoch)
        if self._exchanges and not self.over:
            self._read()

    def post(self, event: Event) -> None:
        self._inbox.append(event)
        self._rouse()

    def crash(self, why: str) -> None:
        if self.over:
            return
        self.over = True
        self.scene.say("%s ends: %s", self.name, why)
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            answered(None, self.epoch)
        for key in list(self._flights):
            self._landed(key, None)
        self._ended(self)

    # ---- the reign

    def _take_over(self) -> None:
        scene = self.scene
        if self.over:
            return
        if scene.away_until > scene.agenda.now:
            scene.agenda.after(_LAST_RETRY_S, self._take_over)
            return
        self.epoch = scene.table.take_over()
        scene.say("%s reigns as epoch %d", self.name, self.epoch)
        if self._struck(Fault.CRASH_IN_TAKEOVER):
            return
        scene.agenda.after(scene.chance.latency(), self._load)

    def _load(self) -> None:
        if self.over:
            return
        loaded = self.scene.table.load()
        gone = sorted({task.worker for task in loaded.running} - self._living())
        lost = [WorkerLost(name, "it was gone when the reign began", proof=TAKEN_ALONG) for name in gone]
        self._core = self.scene.make_core(self.scene.settings, self.epoch)
        self._referee = Referee(self.scene, self._core, self.epoch)
        rules = self.scene.rules
        ruled = [] if rules is None else [RulesChanged(next(self.scene.tickets), rules)]
        planned = SchedulesChanged(next(self.scene.tickets), dict(self.scene.schedules), is_all=True)
        self._follow_up = [*ruled, loaded, *([planned] if self.scene.schedules else []), *lost]
        self._away = False
        self.make_requests().drain()
        self._turn()

    def make_requests(self) -> Requests:
        return Requests(self.scene, self.ask, lambda: self.over)

    # ---- the cycle

    def _rouse(self) -> None:
        if not self._busy and not self.over:
            self._busy = True
            self.scene.agenda.after(0.0, self._turn)

    def _turn(self) -> None:
        if self.over:
            return
        assert self._core is not None
        assert self._referee is not None
        self._busy = True
        self._wakes += 1
        events = [*self._follow_up, *self._inbox]
        self._follow_up, self._inbox = [], []
        self._new = {event.ticket: [task[0] for task in event.tasks] for event in events if isinstance(event, Enqueued)}
        self.scene.steps += 1
        self.scene.say("%s turns: %s", self.name, events)
        self._decided_at = self.scene.agenda.now
        if found := crowds(self._core, events, self._decided_at):
            self.scene.table.count(found)
            events.append(Occupied(found))
        decision = self._core.step(events, self._decided_at)
        self.scene.say("%s decides: %s", self.name, decision)
        self._referee.decided(events, decision)
        self.decided(decision)

    def decided(self, decision: Decision) -> None:
        """Commit, and answer only then."""
        if decision.writes or decision.pages:
            if not self._struck(Fault.CRASH_BEFORE_COMMIT):
                self.scene.agenda.after(
                    self.scene.chance.latency(), self._commit, decision, None, False, _FIRST_RETRY_S
                )
        else:
            self.went_through(decision, Committed([], []))

    def _commit(self, decision: Decision, since: float | None, replay: bool, wait_s: float) -> None:
        scene = self.scene
        if self.over:
            return
        since = scene.agenda.now if since is None else since
        if scene.nemesis.strikes(Fault.POSTGRES_AWAY):
            scene.away_until = scene.agenda.now + scene.chance.choice((0.3, 3.0, 20.0))
        if scene.away_until > scene.agenda.now or scene.nemesis.strikes(Fault.COMMIT_FAILED):
            scene.say("%s cannot commit", self.name)
            self.again(decision, since, wait_s)
            return
        try:
            committed = self._apply(decision, replay)
        except EpochLost:
            scene.nemesis.note(Fault.FENCED)
            self.crash("another one reigns")
            return
        if scene.nemesis.strikes(Fault.COMMIT_UNKNOWN):
            scene.say("%s does not know whether it committed", self.name)
            self._replay_changes_nothing(decision)
            self.again(decision, since, wait_s)
        elif not self._struck(Fault.CRASH_AFTER_COMMIT):
            pages = [scene.table.page(wanted) for wanted in decision.pages]
            self._away = False
            committed.payloads = scene.table.payloads(decision.payloads)
            committed.checkpoints = scene.table.left(decision.checkpoints)
            self._follow_up = self.follow_up(committed.unwritten(decision), pages)
            if committed.released is not None:
                self._follow_up.append(committed.released)
            scene.agenda.after(scene.chance.latency() / 2, self.went_through, decision, committed)

    def _apply(self, decision: Decision, replay: bool) -> Committed:
        scene = self.scene
        assert self._referee is not None
        if not decision.writes:
            return Committed([], [])
        before = scene.table.epoch
        committed = scene.table.commit(decision.writes, self.epoch, replay, self._decided_at)
        require(before == self.epoch, Rule.FENCE, f"{self.name} writes as epoch {self.epoch}, {before} reigns")
        self._referee.applied()
        if scene.timetable is not None:
            scene.timetable.committed(decision.writes)
        scene.ledger.committed(decision.writes)
        if committed.refused or committed.rejected:
            scene.say("refused: %s, rejected: %s", committed.refused, committed.rejected)
        return committed

    def follow_up(self, unwritten: list[TaskId], pages: Sequence[Event]) -> list[Event]:
        return [*([Refused(unwritten)] if unwritten else []), *pages]

    def again(self, decision: Decision, since: float, wait_s: float) -> None:
        scene = self.scene
        if scene.agenda.now - since > AWAY_AFTER_S:
            self._away = True
            self._refuse_requests(decision)
        scene.agenda.after(wait_s, self._commit, decision, since, True, min(2 * wait_s, _LAST_RETRY_S))

    def _refuse_requests(self, decision: Decision) -> None:
        """Clients are told that nothing is known of what is in the open transaction; the rest is turned away."""
        tickets = [reply.ticket for reply in decision.replies if isinstance(reply, _OF_CLIENTS)]
        turned_away = [event for event in self._inbox if isinstance(event, _OF_PEOPLE)]
        self._inbox = [event for event in self._inbox if not isinstance(event, _OF_PEOPLE)]
        for ticket in [*tickets, *(event.ticket for event in turned_away)]:
            self._answer(ticket, None)

    def _replay_changes_nothing(self, decision: Decision) -> None:
        table = self.scene.table
        if not decision.writes or table.edges.owed:
            return  # what was too much for one commit is gone on with by the next, a replay or not
        before = table.snapshot()
        table.commit(decision.writes, self.epoch, replay=True, now=self._decided_at)
        require(table.snapshot() == before, Rule.REPLAY, str(decision.writes))

    def went_through(self, decision: Decision, committed: Committed) -> None:
        if self.over:
            return
        assert self._referee is not None
        self._referee.committed(decision, committed.unwritten(decision))
        if self.answer_all(decision, committed):
            self._rest(decision.wake_at)

    def answer_all(self, decision: Decision, committed: Committed) -> bool:
        """False where it did not live to the end of it."""
        for number, reply in enumerate(decision.replies):
            if number and self._struck(Fault.CRASH_BETWEEN_ANSWERS):
                return False
            self.correct(reply, committed.unwritten(decision))
            if isinstance(reply, PollReply) and reply.leases:
                self.complete(reply, committed.payloads)
                self.add_checkpoints(reply, committed.checkpoints)
            unfit = any(task_id in committed.rejected for task_id in self._new.get(reply.ticket, ()))
            self._answer(reply.ticket, None if unfit else reply)
        assert self._core is not None
        self._core.answered(self.scene.agenda.now)
        return not self._struck(Fault.CRASH_AFTER_ANSWERS)

    def complete(self, reply: PollReply, payloads: Mapping[TaskId, bytes]) -> None:
        """Put large payloads into the leases that lack them."""
        reply.leases = [(*lease[:5], payloads.get(lease[0], lease[5]), *lease[6:]) for lease in reply.leases or ()]

    def add_checkpoints(self, reply: PollReply, checkpoints: Mapping[TaskId, bytes]) -> None:
        reply.leases = [
            (*lease[:9], checkpoints[lease[0]]) if lease[0] in checkpoints else lease for lease in reply.leases or ()
        ]

    def correct(self, reply: Reply, unwritten: Collection[TaskId]) -> None:
        """Take from an answer what the table did not agree to."""
        if isinstance(reply, EnqueueReply):
            reply.stale = reply.stale or not set(unwritten).isdisjoint(reply.replaced)
        if isinstance(reply, PollReply) and reply.leases:
            reply.leases = [lease for lease in reply.leases if lease[0] not in unwritten]
        elif isinstance(reply, RetryReply) and reply.task_id in unwritten:
            reply.refused = State.QUEUED
        elif isinstance(reply, ChangeReply) and reply.task_id in unwritten:
            reply.stale = True

    def _answer(self, ticket: int, reply: Reply | None) -> None:
        answered = self._waiting.pop(ticket, None)
        if answered is not None:
            answered(reply, self.epoch)

    def _rest(self, wake_at: float | None) -> None:
        agenda = self.scene.agenda
        if self._follow_up or self._inbox:
            agenda.after(0.0, self._turn)
            return
        self._busy = False
        if wake_at is not None:
            agenda.after(max(0.0, wake_at - agenda.now), self._wake, self._wakes)
        if self.scene.nemesis.strikes(Fault.CRASH_AT_REST):
            agenda.after(self.scene.chance.latency(), self.crash, "killed while it waits")

    def _wake(self, number: int) -> None:
        if number == self._wakes:
            self._rouse()

    def _struck(self, fault: Fault) -> bool:
        struck = self.scene.nemesis.strikes(fault)
        if struck:
            self.crash(fault)
        return struck

    def drain(self) -> None:
        self.post(Draining())
