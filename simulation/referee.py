"""Holds each step of one reign against the rules: what was decided, and what the table holds after the commit."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from asyncproc.core.decision import Decision, EnqueueReply, PollReply, RegisterReply
from asyncproc.core.events import BulkAsked, ChangeAsked, Draining, Enqueued, Event, Polled, Registered, WorkerLost
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.task import TaskId
from simulation.agreement import agree
from simulation.crowding import Crowding
from simulation.faults import Fault
from simulation.ledger import name
from simulation.order import (
    Patience,
    Shares,
    all_are_where_they_belong,
    nobody_idles,
    nobody_is_early,
    nobody_is_kept_from_home,
    nothing_sleeps,
    started_in,
    the_best_go_first,
)
from simulation.rules import Rule, Violation, require
from simulation.scene import Scene


@dataclass(slots=True)
class _Asking:
    worker: str
    pool: str
    since: float


class Referee:
    def __init__(self, scene: Scene, core: Core, epoch: int) -> None:
        self._scene = scene
        self._core = core
        self._epoch = epoch
        self._shares = Shares(scene.settings)
        self._patience = Patience(scene.settings)
        self._polls: dict[int, _Asking] = {}
        self._sessions: dict[str, int] = {}
        """Of each worker, the one that its last registration was answered with."""
        self._pools: dict[str, str] = {}
        self._quiet_s: dict[str, float] = {}
        """How long each worker was not heard from while somebody listened."""
        self._answered: set[str] = set()
        """Workers one of whose polls is answered in this step."""
        self._patient: set[str] = set()
        self._stepped_at: float | None = None
        self._counters = replace(core.counters)
        self._known: set[str] = set()
        self._lost: dict[str, int] = {}
        """Workers given up in this step, and how many deaths before prove a task aboard guilty: 0 where none is
        suspected."""
        self._given_back: list[TaskId] = []
        """Tasks that came back unstarted in this step."""
        self._draining = False
        self._crowding = Crowding()
        self._settled = False
        """The first commit of the reign is past, which always asks for pages."""

    def decided(self, events: Sequence[Event], decision: Decision) -> None:
        now = self._scene.agenda.now
        replies = self._answers(events, decision)
        self._granted(decision)
        self._listened(events, replies, now)
        self._counted(events, decision, replies)
        if any(isinstance(event, ChangeAsked | BulkAsked) for event in events) or decision.writes.replaced:
            self._shares.give_up()
        self._draining = self._draining or any(isinstance(event, Draining) for event in events)
        require(not (self._draining and started_in(decision)), Rule.DRAINED, "a task starts all the same")
        for ticket, asking in self._polls.items():
            overdue = asking.since + self._most_s(asking) <= now
            require(not overdue, Rule.ANSWERED, f"{asking.worker} is kept waiting, ticket {ticket}")
        if self._epoch == self._scene.table.epoch:
            table, rules = self._scene.table, self._core.backlog.rules
            self._scene.ledger.purged |= self._crowding.decided(decision.writes, table, rules)
            for event in events:
                if isinstance(event, Enqueued) and isinstance(reply := replies.get(event.ticket), EnqueueReply):
                    self._crowding.refused(event, reply, decision.writes)
                    if reply.full:
                        self._scene.nemesis.note(Fault.NO_ROOM)
            nobody_is_early(decision, self._scene.table, now)
            self._scene.ledger.judge_writes(decision.writes, self._charged(decision))

    # ---- calls and answers

    def _answers(self, events: Sequence[Event], decision: Decision) -> dict[int, object]:
        """The replies by ticket. Every call but a poll is answered in its own step, and a report is too."""
        heard = dict(self._sessions)
        self._answered.clear()
        replies: dict[int, object] = {}
        for answer in decision.replies:
            require(answer.ticket not in replies, Rule.ANSWERED, f"ticket {answer.ticket} is answered twice")
            replies[answer.ticket] = answer
        for event in events:
            ticket = getattr(event, "ticket", None)
            if isinstance(event, Polled):
                self._polled(event, replies, heard)
            elif ticket is not None:
                require(ticket in replies, Rule.ANSWERED, f"ticket {ticket} is left without an answer")
            if isinstance(event, Registered):
                self._registered(event, replies[event.ticket])
        for ticket in replies:
            asking = self._polls.pop(ticket, None)
            reply = replies[ticket]
            if asking is not None and _is_heard(reply):
                self._answered.add(asking.worker)
            if asking is None and isinstance(reply, PollReply):
                raise Violation(Rule.ANSWERED, f"ticket {ticket} was answered before")
        return replies

    def _polled(self, event: Polled, replies: dict[int, object], heard: dict[str, int]) -> None:
        reply = replies.get(event.ticket)
        self._polls[event.ticket] = _Asking(event.worker, self._pools.get(event.worker, ""), self._scene.agenda.now)
        if event.outcomes or event.returned:
            require(reply is not None, Rule.ANSWERED, f"a report of {event.worker} is left without an answer")
        of_this_reign = self._scene.epochs.pop(event.ticket, self._epoch) == self._epoch
        if heard.get(event.worker) != event.session or not of_this_reign:
            refused = isinstance(reply, PollReply) and reply.leases is None
            require(refused, Rule.HEARD, f"a call of {event.worker} from session {event.session} is heard")

    def _registered(self, event: Registered, reply: object) -> None:
        assert isinstance(reply, RegisterReply)
        self._sessions[event.worker] = reply.session
        self._pools[event.worker] = event.pool
        (self._patient.add if event.patient else self._patient.discard)(event.worker)

    def _most_s(self, asking: _Asking) -> float:
        """How long its poll may stay open."""
        settings = self._scene.settings
        return settings.longest_poll_s if asking.worker in self._patient else settings.poll_s

    def _granted(self, decision: Decision) -> None:
        claimed = {(claim[0], claim[1]) for claim in decision.writes.claims}
        claimed.update((task.id, task.lease) for task in decision.writes.inserts if task.state is State.RUNNING)
        granted: list[tuple[TaskId, int]] = []
        for reply in decision.replies:
            if isinstance(reply, PollReply):
                granted.extend((lease[0], lease[1]) for lease in reply.leases or [])
                for lease in reply.leases or []:
                    suspected = self._core.tasks[lease[0]].losses > 0
                    require(lease[8] or not suspected, Rule.CONFINED, f"{name(lease[0])} is a suspect")
        if Counter(granted) != Counter(claimed):
            raise Violation(Rule.GRANTED, f"{len(granted)} leases are granted, {len(claimed)} claimed")

    # ---- workers come and go

    def _listened(self, events: Sequence[Event], replies: dict[int, object], now: float) -> None:
        settings = self._scene.settings
        gap_s = 0.0 if self._stepped_at is None else min(now - self._stepped_at, settings.poll_s)
        self._stepped_at = now
        for worker in self._quiet_s:
            self._quiet_s[worker] += gap_s
        self._lost = {}
        for event in events:
            if isinstance(event, WorkerLost):
                self._lost.setdefault(event.worker, event.proof if event.charged else 0)
            elif isinstance(event, Registered) or (isinstance(event, Polled) and _is_heard(replies.get(event.ticket))):
                self._quiet_s[event.worker] = 0.0
        self._excuse_the_patient(settings.poll_s)
        for worker in sorted(self._known - self._core.workers.keys() - self._lost.keys()):
            quiet_s = self._quiet_s.get(worker, 0.0)
            patient = quiet_s >= settings.poll_s + settings.silence_s - 1e-3
            require(patient, Rule.INNOCENT_WORKER, f"{worker} is given up after {quiet_s:.3f} s")
            self._lost[worker] = 1
        if any(isinstance(event, Registered | Polled) and event.worker in self._lost for event in events):
            self._shares.give_up()
        for worker in self._lost:
            self._quiet_s.pop(worker, None)
            if worker not in self._core.workers:
                self._sessions.pop(worker, None)
        self._known = set(self._core.workers)
        for worker in self._known:
            self._quiet_s.setdefault(worker, 0.0)

    def _excuse_the_patient(self, poll_s: float) -> None:
        """Who is answered may have waited for long, but nobody had to hear of it until now."""
        for worker in self._answered & self._quiet_s.keys():
            self._quiet_s[worker] = min(self._quiet_s[worker], poll_s)

    def _charged(self, decision: Decision) -> list[TaskId]:
        """Tasks that failed by the death of their worker; each was alone aboard, and aboard of one before."""
        table, writes = self._scene.table, decision.writes
        ended = {row[0] for row in writes.succeeded}
        by_death: list[TaskId] = []
        failures = [(row[0], row[2]) for row in writes.failed] + [(row[0], row[4]) for row in writes.retried]
        for task_id, error in failures:
            if error.startswith("WorkerDied"):
                by_death.append(task_id)
            else:
                ended.add(task_id)
        for task_id in by_death:
            row = table.live[task_id]
            aboard = [
                other.id
                for other in table.live.values()
                if other.state is State.RUNNING and other.worker == row.worker and other.id not in ended
            ]
            proof = self._lost.get(row.worker, 0)
            require(proof, Rule.INNOCENT_TASK, f"{row.worker} of {name(task_id)} did not die")
            require(aboard == [task_id], Rule.INNOCENT_TASK, f"{name(task_id)} was not alone on {row.worker}")
            require(row.losses >= proof, Rule.INNOCENT_TASK, f"{name(task_id)} had {row.losses} losses of {proof}")
        self._given_back = []
        for task_id, _, losses in writes.requeued:
            row = table.live[task_id]
            if row.worker not in self._lost and not losses:
                self._given_back.append(task_id)
            suspected = self._lost.get(row.worker, 0) > 0 and row.state is State.RUNNING
            # Given back in the same step as its worker was lost, it may be either.
            require(
                row.losses <= losses <= row.losses + suspected,
                Rule.INNOCENT_TASK,
                f"{name(task_id)} has {losses} losses",
            )
        return by_death

    # ---- counters

    def _counted(self, events: Sequence[Event], decision: Decision, replies: dict[int, object]) -> None:
        before, now, writes = self._counters, self._core.counters, decision.writes
        self._counters = replace(now)
        polls = [event for event in events if isinstance(event, Polled)]
        heard = [event for event in polls if _is_heard(replies.get(event.ticket))]
        reported = sum(len(event.outcomes) for event in heard)
        # A poll that was heard and then answered by None, for its worker was lost or registered in the same step,
        # cannot be told from one that was not.
        fresh = len(polls) - len(heard)
        charged = sum(row[2].startswith("WorkerDied") for row in writes.failed)
        charged += sum(row[4].startswith("WorkerDied") for row in writes.retried)
        new_running = sum(task.state is State.RUNNING for task in writes.inserts)
        _equal("enqueued", now.enqueued - before.enqueued, len(writes.inserts))
        _equal("claimed", now.claimed - before.claimed, len(writes.claims) + new_running)
        _equal("succeeded", now.succeeded - before.succeeded, len(writes.succeeded))
        _equal("failed", now.failed - before.failed, len(writes.failed))
        _equal("retried", now.retried - before.retried, len(writes.retried))
        ended = len(writes.succeeded) + len(writes.failed) + len(writes.retried) - charged
        named = {(outcome[0], outcome[1]) for event in heard for outcome in event.outcomes}
        live = self._scene.table.live
        ended += sum(
            row[:2] in named and live[row[0]].state is State.RUNNING for row in writes.cancelled if row[0] in live
        )
        stale = now.stale_outcomes - before.stale_outcomes
        if fresh == now.stale_polls - before.stale_polls:
            _equal("outcomes", ended + stale, reported)
        else:
            require(ended + stale >= reported, Rule.COUNTERS, f"{reported} outcomes, {ended} counted, {stale} stale")

    # ---- after the commit

    def applied(self) -> None:
        """The step is on record, whether or not the QueueActor lives to hear of it."""
        for worker in self._lost:
            self._scene.ledger.cut_off(worker)

    def committed(self, decision: Decision, unwritten: Collection[TaskId]) -> None:
        scene, table = self._scene, self._scene.table
        if self._epoch != table.epoch:
            return
        but = {*unwritten, *scene.ledger.taken}
        keys = Counter((row.options.type, row.terms.unique_key) for row in table.live.values() if row.terms.unique_key)
        require(all(number == 1 for number in keys.values()), Rule.UNIQUE, f"{keys.most_common(1)}")
        self._crowding.committed(decision.writes, table)
        agree(self._core, table, but)
        # These may wait for a worker that knows them: whether they do cannot be told from outside.
        but.update(row.id for row in table.live.values() if row.options.type == scene.lacking)
        started = started_in(decision)
        all_are_where_they_belong(sorted(started), table, scene.settings, self._pools)
        rules = None if scene.rules is None else self._core.backlog.rules
        the_best_go_first(started, table, scene.settings, but, rules, scene.batching)
        if scene.batching or scene.affine:
            self._shares.give_up()  # who rides along pays for it later
        if rules is not None:
            assert self._stepped_at is not None
            scene.turnstile.started(started, table, rules, self._stepped_at)
            self._shares.give_up()
        if scene.shaped:
            self._shares.give_up()
        self._shares.committed(started, self._given_back, table, but)
        if not self._settled:
            self._settled = True
        elif unwritten or any(page.queue is not None for page in decision.pages):
            # A queue whose page is under way starves beside the others, and then serves out what it is owed.
            self._shares.give_up()
        assert self._stepped_at is not None
        goes_on = decision.wake_at is not None and decision.wake_at <= self._stepped_at
        if not (decision.pages or unwritten or goes_on):
            nothing_sleeps(table, self._stepped_at, decision.wake_at, but)
            if not self._draining:
                idle = self._idle()
                nobody_idles(idle, table, scene.settings, but, rules, self._stepped_at)
                self._patience.judge(idle, table, but, rules, self._stepped_at)
                if not self._lost:
                    nobody_is_kept_from_home(self._core, self._idle_names(), table, {*but, *self._patience.held_up})
        else:
            self._patience.give_up()

    def _idle(self) -> Counter[str]:
        return Counter(self._idle_names().values())

    def _idle_names(self) -> dict[str, str]:
        """Workers that ask and hold nothing, each with its pool."""
        busy = {row.worker for row in self._scene.table.live.values() if row.state is State.RUNNING}
        busy.update(name for name, worker in self._core.workers.items() if worker.leaving)
        return {asking.worker: asking.pool for asking in self._polls.values() if asking.worker not in busy}


def _is_heard(reply: object) -> bool:
    """A poll that is parked was heard too."""
    return not (isinstance(reply, PollReply) and reply.leases is None)


def _equal(what: str, counted: int, is_so: int) -> None:
    require(counted == is_so, Rule.COUNTERS, f"{counted} {what} are counted, it was {is_so}")
