"""Several QueueActors, each with tables and epochs of its own: each queue has one home, and moves between them while
QueueActors die, are taken for dead, and calls come late.

There is none of it in asyncproc yet but the core, the table and the epoch. This is what it would take, and a referee
that says whether it is enough. Where a queue is at home is a row in the tables of each shard that had it or has it,
written in the same commits, behind the same fence, as all else there:

    open -> closing      nothing new comes in, nothing begins; what runs ends
    closing -> open      given up, with the next version: calls for the one before are refused for ever
    closing -> gone      once another shard has a copy of all that waits; the rows go in the same commit
    (there) open         with the next version, and the copy becomes rows

Whoever moves a queue remembers nothing. It looks at both, does the next thing, which is refused where that is not the
next thing any more, and may die and begin again at any time; so may two of them at once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import Final, NamedTuple

from asyncproc.core.decision import EnqueueReply, PollReply, RegisterReply, Reply
from asyncproc.core.events import (
    SUCCEEDED,
    Enqueued,
    Event,
    Lease,
    Outcome,
    Polled,
    QueueReranked,
    Refused,
    Registered,
    Released,
    RulesChanged,
)
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import DUE_LATER, State
from asyncproc.core.steering import Pause, Rules
from asyncproc.core.step import Core
from asyncproc.core.task import NO_TERMS, NewTask, Options, Task, TaskId, lane_key
from asyncproc.errors import EpochLost
from simulation.agenda import NOON, Agenda
from simulation.agreement import agree
from simulation.chance import Chance
from simulation.ledger import name
from simulation.rules import Rule, Violation, require
from simulation.table import Table
from simulation.world import ONCE

FAULTS_S: Final = 20.0
CALM_S: Final = 300.0
QUEUES: Final = ("mail", "images", "video")
SETTINGS: Final = CoreSettings(poll_s=1e6, silence_s=1e6, window=5)
"""No worker is ever lost here: then nothing may run twice at all."""
PATIENCE_S: Final = 1.0
"""After which a call without an answer is made again."""


class At(StrEnum):
    OPEN = "open"
    CLOSING = "closing"
    GONE = "gone"


class Home(NamedTuple):
    """What a shard's tables say of a queue."""

    version: int
    at: At
    to: int = -1


Answer = Callable[[Reply | str | None, int], None]
"""Is given the answer and the epoch of whom it comes from: a reply, a word, or None where nobody knows."""


@dataclass
class Shard:
    """One database, and who reigns over it."""

    number: int
    table: Table = field(default_factory=lambda: Table(1 << 20, SETTINGS.large_bytes))
    homes: dict[str, Home] = field(default_factory=dict)
    copies: dict[str, tuple[int, list[Task]]] = field(default_factory=dict)
    """Rows of queues that are to come, each with the version at which they were read."""
    actors: list["Actor"] = field(default_factory=list)
    """The last one reigns; those before may not know that they do not."""

    def is_open(self, queue: str) -> bool:
        return queue in self.homes and self.homes[queue].at is At.OPEN


class Actor:
    """A QueueActor: the real core, and commits behind the fence of its own shard."""

    def __init__(self, world: "World", shard: Shard) -> None:
        self.world, self.shard, self.over = world, shard, False
        self.epoch = shard.table.take_over()
        self.core = Core(SETTINGS, self.epoch)
        self._waiting: dict[int, Answer] = {}
        self._repeated: set[TaskId] = set()
        self._turn([self.rules(), shard.table.load()])

    def rules(self) -> RulesChanged:
        """Where a queue is not at home nothing of it begins. After a takeover that follows from the table."""
        closed = [queue for queue, home in self.shard.homes.items() if home.at is not At.OPEN]
        return RulesChanged(next(self.world.tickets), Rules(pauses=tuple(Pause("queue", queue) for queue in closed)))

    def prove(self) -> None:
        self.shard.table.prove(self.epoch)

    def end(self) -> None:
        """It dies; those who wait learn nothing."""
        self.over = True
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            self.world.agenda.after(self.world.chance.latency(), answer, None, self.epoch)

    def turn(self, events: Sequence[Event], also: Callable[[], None] = lambda: None) -> bool:
        """A cycle, and those that follow from it. False where it died on the way, or does not reign.

        `also` is written in the first commit.
        """
        try:
            return self._turn(events, also, mortal=True)
        except EpochLost:
            self.end()
            return False

    def _turn(self, events: Sequence[Event], also: Callable[[], None] = lambda: None, *, mortal: bool = False) -> bool:
        table = self.shard.table
        while True:
            decision = self.core.step(events, self.world.agenda.now)
            if mortal and self.world.strikes():
                self.end()
                return False
            self.prove()
            also()
            refused, _ = table.apply(decision.writes, self.world.agenda.now)
            also = _nothing
            self.world.judge()
            if mortal and self.world.strikes():
                self.end()
                return False
            for reply in decision.replies:
                self._answer(reply, refused)
            events = [*([Refused(refused)] if refused else []), *(table.page(wanted) for wanted in decision.pages)]
            if not events and (decision.wake_at is None or decision.wake_at > self.world.agenda.now):
                if decision.wake_at is not None and decision.wake_at < self.world.agenda.now + CALM_S:
                    self.world.agenda.after(decision.wake_at - self.world.agenda.now, self._wake)
                return True

    def _wake(self) -> None:
        if not self.over:
            self.turn([])

    def _answer(self, reply: Reply, refused: Sequence[TaskId]) -> None:
        if isinstance(reply, PollReply) and reply.leases:
            reply.leases = [lease for lease in reply.leases if lease[0] not in refused]
        answer = self._waiting.pop(reply.ticket, None)
        if answer is not None:
            self.world.agenda.after(self.world.chance.latency(), answer, reply, self.epoch)

    def ask(self, make: Callable[[int], Event], answer: Answer) -> None:
        ticket = next(self.world.tickets)
        self._waiting[ticket] = answer
        self.turn([make(ticket)])

    # ---- what clients call

    def enqueue(self, task: NewTask, version: int, again: bool, answer: Answer) -> None:
        """`moved` is for certain: this call and all earlier ones for that version come to nothing, here."""
        table, home = self.shard.table, self.shard.homes.get(task[2].queue)
        try:
            self.prove()
        except EpochLost:
            answer(None, self.epoch)
            self.end()
            return
        if again:
            self._repeated.add(task[0])  # as `Repeats` does: the first call may arrive after its repetition
        if task[0] in self._repeated and (task[0] in table.live or task[0] in table.done):
            answer("ok", self.epoch)
        elif home is None or not self.takes(home, version):
            answer("moved", self.epoch)
        else:
            self.ask(lambda ticket: Enqueued(ticket, [task]), answer)

    def takes(self, home: Home, version: int) -> bool:
        return home.at is At.OPEN and home.version == version

    # ---- what moves a queue: each compares before it sets

    def close(self, queue: str, version: int, to: int) -> None:
        if self.shard.homes.get(queue) == Home(version, At.OPEN):
            self._change(queue, Home(version, At.CLOSING, to))

    def reopen(self, queue: str, version: int) -> None:
        home = self.shard.homes[queue]
        if home.version == version and home.at is At.CLOSING:
            self._change(queue, Home(version + 1, At.OPEN))

    def _change(self, queue: str, home: Home) -> None:
        if self.turn([], lambda: self.shard.homes.update({queue: home})):
            self.turn([self.rules()])

    def arrive(self, queue: str, version: int, rows: list[Task]) -> None:
        """Rows that may be here one day."""
        known = self.shard.copies.get(queue)
        if known is None or self.is_newer(version, known[0]):
            self.turn([], lambda: self.shard.copies.update({queue: (version, rows)}))

    def is_newer(self, version: int, known: int) -> bool:
        return version > known

    def hand_over(self, queue: str, version: int) -> None:
        """From this commit on the queue is another shard's, and never again this one's with the same version."""
        shard, rows = self.shard, self.rows(queue)
        home = shard.homes[queue]
        if (home.version, home.at) != (version, At.CLOSING) or self.runs(rows):
            return

        def leave() -> None:
            shard.homes[queue] = home._replace(at=At.GONE)
            for row in rows:
                del shard.table.live[row.id]

        if self.turn([], leave):
            self.turn([Refused([row.id for row in rows])])

    def open(self, queue: str, version: int) -> None:
        """`version` is that of the home before."""
        shard, rows = self.shard, self.copied(queue, version)
        known = shard.homes.get(queue)
        if rows is None or (known is not None and known.version > version):
            return

        def come() -> None:
            shard.homes[queue] = Home(version + 1, At.OPEN)
            shard.table.live.update((row.id, replace(row)) for row in rows)

        if self.turn([], come):
            lanes = sorted({lane_key(row.options) for row in rows})
            due = min((row.ready_at for row in rows if row.state in DUE_LATER), default=None)
            self.turn([self.rules(), QueueReranked(queue, lanes), Released([], due)])

    def copied(self, queue: str, version: int) -> list[Task] | None:
        known = self.shard.copies.get(queue)
        return known[1] if known is not None and known[0] == version else None

    def rows(self, queue: str) -> list[Task]:
        return [replace(row, draws=()) for row in self.shard.table.live.values() if row.queue == queue]

    def runs(self, rows: Sequence[Task]) -> bool:
        return any(row.state is State.RUNNING for row in rows)


def _nothing() -> None:
    pass


class Mover:
    """Whoever moves queues: looks, and does what is next a little later, when it may not be next any more."""

    def __init__(self, world: "World") -> None:
        self.world = world
        world.agenda.after(0.1, self.look)

    def look(self) -> None:
        world = self.world
        for queue in QUEUES:
            owner = max(world.shards, key=lambda shard: shard.homes.get(queue, Home(-1, At.GONE)).version)
            self.advance(queue, owner, owner.homes[queue])
        world.agenda.after(world.chance.uniform(0.05, 0.5), self.look)

    def advance(self, queue: str, owner: Shard, home: Home) -> None:
        world, chance = self.world, self.world.chance
        here, there = world.reigning(owner), world.reigning(world.shards[home.to])
        if home.at is At.OPEN:
            others = [shard.number for shard in world.shards if shard is not owner]
            if not world.calm and chance.odds(0.2):
                self.later(here.close, queue, home.version, chance.choice(others))
        elif home.at is At.GONE:
            self.later(there.open, queue, home.version)
        elif not world.calm and chance.odds(0.1):
            self.later(here.reopen, queue, home.version)
        elif there.copied(queue, home.version) is not None:
            self.later(here.hand_over, queue, home.version)
        elif not self.waits(here, queue):
            self.later(there.arrive, queue, home.version, here.rows(queue))

    def waits(self, here: Actor, queue: str) -> bool:
        """Until what runs has ended."""
        return here.runs(here.rows(queue))

    def later(self, act: Callable[..., None], *args: object) -> None:
        late = not self.world.calm and self.world.chance.odds(0.1)
        self.world.agenda.after(self.world.chance.uniform(1.0, 5.0) if late else 0.002, self.act, act, args)

    def act(self, act: Callable[..., None], args: tuple[object, ...]) -> None:
        actor = act.__self__  # type: ignore[attr-defined]  # a method of an Actor, always
        if not actor.over:
            act(*args)


class Client:
    """Posts one task, however long it takes."""

    def __init__(self, world: "World", task: NewTask) -> None:
        self.world, self.task = world, task
        self._numbers = count()
        self._call = -1
        self.send(*world.home(task[2].queue), again=False)

    def send(self, shard: Shard, version: int, again: bool) -> None:
        world = self.world
        self._call = number = next(self._numbers)
        actor = world.reach(shard)

        def answer(reply: Reply | str | None, _: int) -> None:
            if number == self._call:
                self.answered(reply, shard, version)

        late = not world.calm and world.chance.odds(0.1)
        delay_s = world.chance.uniform(0.5, 6.0) if late else world.chance.latency()
        world.agenda.after(delay_s, self._arrive, actor, version, again, answer)
        world.agenda.after(PATIENCE_S, answer, None, 0)

    def _arrive(self, actor: Actor, version: int, again: bool, answer: Answer) -> None:
        # One that died takes what was on its way to it along.
        if not actor.over:
            actor.enqueue(self.task, version, again, answer)

    def answered(self, reply: Reply | str | None, shard: Shard, version: int) -> None:
        if reply == "ok" or isinstance(reply, EnqueueReply):
            self._call = -1
            self.world.acknowledged.add(self.task[0])
        elif reply == "moved":
            self._call = -1
            self.world.agenda.after(0.05, self._ask_anew)
        else:
            self.again(shard, version)

    def _ask_anew(self) -> None:
        self.send(*self.world.home(self.task[2].queue), again=True)

    def again(self, shard: Shard, version: int) -> None:
        """Where the first call went, for nobody else knows what became of it."""
        self.send(shard, version, again=True)


class Hand:
    """A worker: it works for all shards, and has a conversation with each."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self.name = world, f"w{number}"
        self._seen: Counter[int] = Counter()
        self._held: dict[int, dict[TaskId, tuple[int, Outcome | None]]] = {shard.number: {} for shard in world.shards}
        self._talks: Counter[int] = Counter()
        self._lines: dict[int, tuple[Actor, int, int]] = {}
        """To whom it speaks at each shard, in which session and conversation."""
        for shard in world.shards:
            self.register(shard)

    def epoch_of(self, shard: Shard) -> int:
        """Where the highest epoch of a shard is remembered. Epochs of two shards say nothing of each other."""
        return shard.number

    def register(self, shard: Shard) -> None:
        self._talks[shard.number] += 1
        talk, actor = self._talks[shard.number], self.world.reach(shard)
        held = [(task_id, lease) for task_id, (lease, _) in self._held[shard.number].items()]

        def answered(reply: Reply | str | None, epoch: int) -> None:
            if talk != self._talks[shard.number]:
                return
            if not isinstance(reply, RegisterReply) or not self._trusts(shard, epoch):
                self.world.agenda.after(0.05, self.register, shard)
                return
            for task_id in reply.dropped:
                self._held[shard.number].pop(task_id, None)
            self._lines[shard.number] = (actor, reply.session, talk)
            self._poll(shard, *self._lines[shard.number])

        actor.ask(lambda ticket: Registered(ticket, self.name, "default", 2, held), answered)

    def _trusts(self, shard: Shard, epoch: int) -> bool:
        key = self.epoch_of(shard)
        trusts, self._seen[key] = epoch >= self._seen[key], max(epoch, self._seen[key])
        return trusts

    def _poll(self, shard: Shard, actor: Actor, session: int, talk: int) -> None:
        if talk != self._talks[shard.number]:
            return
        held = self._held[shard.number]
        outcomes = [outcome for _, outcome in held.values() if outcome is not None]

        def answered(reply: Reply | str | None, epoch: int) -> None:
            if talk != self._talks[shard.number]:
                return
            if not isinstance(reply, PollReply) or reply.leases is None or not self._trusts(shard, epoch):
                self.world.agenda.after(0.05, self.register, shard)
                return
            for outcome in outcomes:
                held.pop(outcome[0], None)
            for lease in reply.leases:
                self._start(shard, lease)
            self._poll(shard, actor, session, talk)

        if actor.over:
            self.register(shard)
        else:
            actor.ask(lambda ticket: Polled(ticket, self.name, session, outcomes), answered)

    def _start(self, shard: Shard, lease: Lease) -> None:
        task_id, number = lease[0], lease[1]
        self._held[shard.number][task_id] = (number, None)
        self.world.started(task_id, shard)
        self.world.agenda.after(self.world.chance.uniform(0.01, 0.5), self._end, shard, task_id, number)

    def _end(self, shard: Shard, task_id: TaskId, number: int) -> None:
        held = self._held[shard.number]
        if held.get(task_id) == (number, None):
            held[task_id] = (number, (task_id, number, SUCCEEDED, b"null", "", 0.1, 0.0, []))
            self._poll(shard, *self._lines[shard.number])


@dataclass(frozen=True, slots=True)
class Cast:
    actor: type[Actor] = Actor
    mover: type[Mover] = Mover
    client: type[Client] = Client
    hand: type[Hand] = Hand


class World:
    """One seed, one history."""

    def __init__(self, seed: int, cast: Cast | None = None) -> None:
        self.chance, self.agenda, self.cast = Chance(seed), Agenda(), cast or Cast()
        self.tickets, self.calm = count(1), False
        self.acknowledged: set[TaskId] = set()
        self.starts: Counter[TaskId] = Counter()
        self.takeovers = self.moves = 0
        self.shards = [Shard(number) for number in range(self.chance.choice((2, 3, 4)))]
        for queue in QUEUES:
            self.chance.choice(self.shards).homes[queue] = Home(0, At.OPEN)
        for shard in self.shards:
            for _ in range(number := shard.number * 2 + 1):
                shard.table.epoch += number  # they had reigns before, one more than the other
            self.take_over(shard)

    def run(self) -> "World":
        """Raises `Violation`."""
        chance, agenda = self.chance, self.agenda
        for _ in range(2):
            self.cast.mover(self)
        for number in range(3):
            self.cast.hand(self, number)
        ids = count(1)
        for _ in range(chance.choice((20, 60))):
            options = Options("Work", chance.choice(QUEUES), chance.randint(-2, 2), ONCE, "shards")
            delay_s = chance.choice((0.0, 0.0, 3.0))
            task = (next(ids).to_bytes(16), b"{}", options, delay_s, NO_TERMS)
            agenda.after(chance.uniform(0.0, FAULTS_S * 0.8), self._post, task)
        self._posted = next(ids) - 1
        agenda.after(0.3, self._usurp)
        agenda.run(NOON + FAULTS_S)
        self.calm = True
        for shard in self.shards:
            for actor in shard.actors[:-1]:
                actor.end()
            self.reigning(shard)
        if not agenda.run(agenda.now + CALM_S, over=self._everything_ended):
            left = [name(row.id) for shard in self.shards for row in shard.table.live.values()]
            raise Violation(Rule.LIVENESS, f"{left or 'a call'} is left")
        agenda.run(agenda.now + 10.0)
        self._judge_the_end()
        return self

    def _post(self, task: NewTask) -> None:
        self.cast.client(self, task)

    def _everything_ended(self) -> bool:
        return len(self.acknowledged) == self._posted and not any(shard.table.live for shard in self.shards)

    # ---- who reigns

    def strikes(self) -> bool:
        return not self.calm and self.chance.odds(0.01)

    def take_over(self, shard: Shard) -> Actor:
        self.takeovers += 1
        shard.actors.append(self.cast.actor(self, shard))
        return shard.actors[-1]

    def reigning(self, shard: Shard) -> Actor:
        """A new one where the last one died."""
        return self.take_over(shard) if shard.actors[-1].over else shard.actors[-1]

    def reach(self, shard: Shard) -> Actor:
        """Or one that does not know that it is over."""
        others = [actor for actor in shard.actors[:-1] if not actor.over]
        return others[-1] if others and self.chance.odds(0.3) else self.reigning(shard)

    def _usurp(self) -> None:
        """One that lives is taken for dead."""
        if not self.calm:
            self.take_over(self.chance.choice(self.shards))
            self.agenda.after(self.chance.uniform(0.5, 4.0), self._usurp)

    def home(self, queue: str) -> tuple[Shard, int]:
        """As a client knows it: of late, and where nobody has it, who had it last."""
        shard = max(self.shards, key=lambda shard: shard.homes.get(queue, Home(-1, At.GONE)).version)
        return shard, shard.homes[queue].version

    # ---- the referee

    def started(self, task_id: TaskId, shard: Shard) -> None:
        self.starts[task_id] += 1
        require(self.starts[task_id] == 1, Rule.ONCE, f"{name(task_id)} starts again, at shard {shard.number}")

    def judge(self) -> None:
        """After each commit."""
        for queue in QUEUES:
            homes = [shard.number for shard in self.shards if shard.is_open(queue)]
            require(len(homes) <= 1, Rule.ONE_HOME, f"{queue} is at home at {homes}")

    def _judge_the_end(self) -> None:
        self.moves = sum(shard.homes.get(queue, Home(0, At.GONE)).version for shard in self.shards for queue in QUEUES)
        found = Counter(task_id for shard in self.shards for task_id in (*shard.table.live, *shard.table.done))
        for task_id in sorted(self.acknowledged):
            require(found[task_id], Rule.ACKNOWLEDGED, f"{name(task_id)} is nowhere")
        for task_id, times in found.items():
            require(times == 1, Rule.FINAL, f"{name(task_id)} is in the tables of {times} shards")
        for shard in self.shards:
            agree(self.reigning(shard).core, shard.table)
