"""A QueueActor without Ray and Postgres: the core, a table, a clock that moves when told, and workers by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

from asyncproc.core.batches import Batching
from asyncproc.core.decision import Decision, PollReply, RegisterReply, Reply, RetryReply
from asyncproc.core.events import (
    KILLED,
    Draining,
    Enqueued,
    Event,
    Lease,
    Note,
    Occupied,
    Outcome,
    Polled,
    Refused,
    Registered,
    RetryAsked,
    WorkerLost,
)
from asyncproc.core.overflow import crowds
from asyncproc.core.retry import RetryPolicy, constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.task import NO_LIMITS, NO_TERMS, NewTask, Options, Task, TaskId, TimeLimits
from simulation.agreement import agree
from simulation.table import NO_LIMIT, Table

NOON: Final = 1_800_000_000.0
ONCE: Final = constant(max_attempts=1, backoff_s=0)
THRICE: Final = constant(max_attempts=3, backoff_s=5)


class Granted(NamedTuple):
    """A lease as its worker knows it."""

    task: TaskId
    number: int
    attempt: int
    worker: str


class World:
    def __init__(
        self,
        settings: CoreSettings | None = None,
        make_core: Callable[[CoreSettings, int], Core] = Core,
        page_bytes: int | None = None,
    ) -> None:
        self.settings = settings or CoreSettings()
        self.make_core = make_core
        self.table = Table(NO_LIMIT if page_bytes is None else page_bytes, self.settings.large_bytes)
        self.now = NOON
        self.epoch = 0
        self.answers: dict[int, Reply] = {}
        self.sessions: dict[str, int] = {}
        self.wake_at: float | None = None
        self.decisions: list[Decision] = []
        self.tampered = False
        """Somebody else changed the table: memory learns of it when a claim is refused."""
        self._registering: dict[int, str] = {}
        self._made = 0
        self._tickets = 0
        self._after_commit: list[Event] = []
        self.core = make_core(self.settings, self.epoch)
        self.restart()

    def running(self) -> int:
        return sum(len(worker.held) for worker in self.core.workers.values())

    # ---- the cycle

    def restart(self) -> None:
        """The QueueActor dies, and the next one takes over."""
        self.epoch += 1
        self.core = self.make_core(self.settings, self.epoch)
        self.sessions.clear()
        self._after_commit.clear()
        self.turn(self.table.load())

    def turn(self, *events: Event) -> Decision:
        """One cycle with these events, and those that follow until all pages are read."""
        decision = self.cycle(events)
        while self._after_commit:
            self.cycle([])
        return decision

    def cycle(self, events: Iterable[Event]) -> Decision:
        decision = self.decide(events)
        self.commit(decision)
        self.answer(decision.replies)
        return decision

    def decide(self, events: Iterable[Event]) -> Decision:
        # The pages come last here: the core must not rely on the order in which a shell gathers.
        events = [*events, *self._after_commit]
        if found := crowds(self.core, events, self.now):
            self.table.count(found)
            events.append(Occupied(found))
        decision = self.core.step(events, self.now)
        self._after_commit = []
        self.wake_at = decision.wake_at
        self.decisions.append(decision)
        return decision

    def commit(self, decision: Decision) -> None:
        refused, released = self.table.apply(decision.writes, self.now)
        if released is not None:
            self._after_commit.append(released)
        for reply in decision.replies:
            if isinstance(reply, PollReply) and reply.leases:
                reply.leases = [
                    self._completed(lease, decision.payloads, decision.checkpoints) for lease in reply.leases
                ]
        if refused:
            self._after_commit.append(Refused(refused))
            for reply in decision.replies:
                if isinstance(reply, PollReply) and reply.leases:
                    reply.leases = [lease for lease in reply.leases if lease[0] not in refused]
        self._after_commit.extend(self.table.page(wanted) for wanted in decision.pages)
        if not self.tampered:
            agree(self.core, self.table)

    def _completed(self, lease: Lease, payloads: Sequence[TaskId], checkpoints: Sequence[TaskId]) -> Lease:
        if lease[0] in checkpoints:
            return (*self._completed(lease, payloads, [])[:9], self.table.checkpoints[lease[0]])
        if lease[0] not in payloads:
            return lease
        assert not lease[5], "what is at hand is not read again"
        return (*lease[:5], self.table.live[lease[0]].payload, *lease[6:])

    def answer(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            assert reply.ticket not in self.answers, f"ticket {reply.ticket} is answered twice"
            self.answers[reply.ticket] = reply
            if isinstance(reply, RegisterReply) and reply.ticket in self._registering:
                self.sessions[self._registering[reply.ticket]] = reply.session

    def wait(self, seconds: float) -> None:
        """Let time pass; the core is woken when it asked to be."""
        end = self.now + seconds
        while self.wake_at is not None and self.wake_at <= end:
            self.now = max(self.now, self.wake_at)
            self.turn()
        self.now = end
        self.turn()

    # ---- clients

    def new(
        self,
        queue: str = "default",
        priority: int = 0,
        delay_s: float = 0.0,
        type_name: str = "Work",
        retry: RetryPolicy = THRICE,
        payload: bytes = b"{}",
        limits: TimeLimits = NO_LIMITS,
    ) -> NewTask:
        self._made += 1
        options = Options(type_name, queue, priority, retry, "tests", limits)
        return (self._made.to_bytes(16), payload, options, delay_s, NO_TERMS)

    def enqueue(
        self,
        queue: str = "default",
        priority: int = 0,
        delay_s: float = 0.0,
        type_name: str = "Work",
        retry: RetryPolicy = THRICE,
        payload: bytes = b"{}",
        limits: TimeLimits = NO_LIMITS,
    ) -> TaskId:
        return self.enqueue_all([self.new(queue, priority, delay_s, type_name, retry, payload, limits)])[0]

    def enqueue_all(self, tasks: Sequence[NewTask]) -> list[TaskId]:
        ticket = self.ticket()
        self.turn(Enqueued(ticket, list(tasks)))
        assert ticket in self.answers
        return [task[0] for task in tasks]

    def ask_retry(self, task: TaskId) -> State | None:
        """Returns the state that forbids it."""
        ticket = self.ticket()
        row = self.table.done.get(task) or self.table.live[task]
        self.turn(RetryAsked(ticket, copy_of(row)))
        reply = self.answers[ticket]
        assert isinstance(reply, RetryReply)
        return reply.refused

    def drain(self) -> None:
        self.turn(Draining())

    # ---- workers

    def register(
        self,
        worker: str,
        *held: Granted,
        pool: str = "default",
        concurrency: int = 1,
        batching: Mapping[str, Batching] = MappingProxyType({}),
    ) -> list[TaskId]:
        """Returns what the worker is to forget."""
        ticket = self.ticket()
        self._registering = {ticket: worker}
        leases = [(lease.task, lease.number) for lease in held]
        self.turn(Registered(ticket, worker, pool, concurrency, leases, batching=batching))
        reply = self.answers[ticket]
        assert isinstance(reply, RegisterReply)
        return reply.dropped

    def poll(
        self, worker: str, *outcomes: Outcome, returned: Sequence[Granted] = (), notes: Sequence[Note] = ()
    ) -> int:
        """Returns the ticket under which the answer will be found."""
        if worker not in self.sessions:
            self.register(worker)
        ticket = self.ticket()
        back = [(lease.task, lease.number) for lease in returned]
        self.turn(Polled(ticket, worker, self.sessions[worker], list(outcomes), back, notes=notes))
        return ticket

    def granted(self, ticket: int, worker: str) -> list[Granted]:
        return [Granted(lease[0], lease[1], lease[2], worker) for lease in self.leases(ticket) or []]

    def leases(self, ticket: int) -> list[Lease] | None:
        """What the poll was answered with; it must have been."""
        reply = self.answers[ticket]
        assert isinstance(reply, PollReply)
        return reply.leases

    def recalled(self, ticket: int) -> list[TaskId]:
        """What the answer to the poll calls back; nothing where there is none yet."""
        reply = self.answers.get(ticket)
        assert reply is None or isinstance(reply, PollReply)
        return [] if reply is None else [task_id for task_id, _ in reply.recalled]

    def give_back(self, leases: Sequence[Granted]) -> list[Granted]:
        """Their worker had not begun them; returns what it is granted instead."""
        ticket = self.poll(leases[0].worker, returned=leases)
        return self.granted(ticket, leases[0].worker)

    def parked(self, ticket: int) -> bool:
        return ticket not in self.answers

    def take(self, worker: str) -> list[Granted]:
        """Poll, and return what is granted at once."""
        ticket = self.poll(worker)
        return [] if self.parked(ticket) else self.granted(ticket, worker)

    def lease(self, task: TaskId, worker: str) -> Granted:
        """The worker takes one task, and it is this one."""
        (lease,) = self.take(worker)
        assert lease.task == task
        return lease

    def report(self, lease: Granted, outcome: Outcome) -> list[Granted]:
        """Returns the leases that the answer brings."""
        ticket = self.poll(lease.worker, (lease.task, lease.number, *outcome[2:]))
        return self.granted(ticket, lease.worker)

    def lose(self, worker: str, charged: bool = True, proof: int = 1) -> None:
        self.turn(WorkerLost(worker, "killed by signal 9", charged, proof))

    # ---- what is there to see

    def row(self, task: TaskId) -> Task:
        return self.table.live.get(task) or self.table.done[task]

    def state(self, task: TaskId) -> State:
        return self.row(task).state

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets


def succeeded(result: bytes = b"null", seconds: float = 1.0, children: Sequence[NewTask] = ()) -> Outcome:
    """The task and its lease are filled in by `World.report`."""
    return (b"", 0, True, result, "", seconds, 0.0, list(children))


def failed(error: str = "ValueError: no", seconds: float = 1.0, spread: float = 0.0) -> Outcome:
    return (b"", 0, False, b'{"type":"ValueError","message":"no","traceback":""}', error, seconds, spread, [])


def killed(seconds: float = 1.0) -> Outcome:
    """The task took the process of its own along."""
    return (b"", 0, KILLED, b'{"type":"WorkerDied","message":"gone","traceback":""}', "gone", seconds, 0.0, [])


def copy_of(task: Task) -> Task:
    return replace(task)
