"""Seeded histories: clients, workers and a network around the core, and a nemesis that breaks them.

A ledger that the core never reads judges at the end: nothing lost, nothing ended twice, and nothing run twice but where
its worker was lost.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random  # noqa: TID251 - seeded: a failing history replays
from typing import Final

from asyncproc.core.decision import Decision, EnqueueReply, PollReply, RegisterReply, Reply
from asyncproc.core.events import Enqueued, Event, Outcome, Polled, Registered, RetryAsked, WorkerLost
from asyncproc.core.rank import rank
from asyncproc.core.retry import RetryPolicy
from asyncproc.core.settings import CoreSettings, QueueRules
from asyncproc.core.states import State
from asyncproc.core.step import Core
from asyncproc.core.task import NewTask, Options, TaskId
from simulation.cast import Holding, Ledger, SimWorker
from simulation.table import ready_key
from simulation.world import World

TICKS: Final = 120
ROUNDS: Final = 400
"""Of calm, within which everything must have ended."""
MAX_OUTCOMES: Final = 3

QUEUES: Final = ("mail", "images", "video")
POOL_OF: Final = {"video": "gpu"}


class History:
    """One seed, one history."""

    def __init__(self, seed: int, make_core: Callable[[CoreSettings, int], Core] = Core, hasty: bool = False) -> None:
        self.chance = chance = Random(seed)
        settings = CoreSettings(
            queues={"mail": QueueRules(weight=3), "images": QueueRules(aging_s=chance.choice([1.0, 60.0, 1e10]))},
            pool_of=POOL_OF,
            default_pool="cpu",
            window=chance.choice([1, 2, 5, 10_000]),
            window_bytes=chance.choice([60, 1 << 20]),
            max_held=chance.choice([1, 4, 1000]),
        )
        self.hasty = hasty
        """A mutant of the shell: it answers before it commits."""
        self.calm = False
        self.ledger = Ledger()
        self.workers: dict[str, SimWorker] = {}
        self.to_actor: list[Event] = []
        self.to_workers: list[Reply] = []
        self.poison: set[TaskId] = set()
        self.asked: dict[int, list[NewTask]] = {}
        """Enqueue calls without an answer."""
        self.poll_epochs: dict[int, int] = {}
        self.slow: set[int] = set()
        """Calls that were given up and are still on their way."""
        self.world = World(settings, make_core, page_bytes=chance.choice([25, 1 << 20]))

    def run(self) -> Ledger:
        self._hire("cpu")
        self._hire("gpu")
        for _ in range(TICKS):
            self.world.now += self.chance.choice([0.0, 0.01, 0.1, 0.5])
            self._act()
            self._deliver(0.7)
            self._turn(self._arrivals(0.7))
        self._calm_down()
        self._judge()
        return self.ledger

    # ---- the cycle, and what may go wrong with it

    def _turn(self, events: Iterable[Event]) -> None:
        world, chance = self.world, self.chance
        decision = world.decide(self._filtered(events))
        if self.hasty:
            self._answer(decision)
        fate = chance.random()
        if fate < 0.015:
            return self._crash("crash before commit")
        if fate < 0.03:
            world.table.apply(decision.writes)
            return self._crash("crash before answers")
        if fate < 0.06:
            self._commit_unknown(decision)
        if 0.06 < fate < 0.07:
            self.ledger.seen["Postgres away"] += 1
            world.now += 60.0
        world.commit(decision)
        self._check(decision)
        if not self.hasty:
            self._answer(decision)
        if fate > 0.99:
            self._crash("crash after answers")
        return None

    def _filtered(self, events: Iterable[Event]) -> list[Event]:
        """As the shell does, tasks are left out that an earlier call has brought already."""
        live, done = self.world.table.live, self.world.table.done
        kept: list[Event] = []
        for event in events:
            if isinstance(event, Enqueued):
                tasks = [task for task in event.tasks if task[0] not in live and task[0] not in done]
                self.ledger.seen["doubled enqueue"] += len(tasks) < len(event.tasks)
                event = Enqueued(event.ticket, tasks)
            kept.append(event)
        return kept

    def _commit_unknown(self, decision: Decision) -> None:
        """Applied, but the answer was lost: the replay that follows must change nothing."""
        self.ledger.seen["unknown commit"] += 1
        self.world.table.apply(decision.writes)
        before = self.world.table.snapshot()
        self.world.table.apply(decision.writes)
        assert self.world.table.snapshot() == before, "a replay changes nothing"

    def _crash(self, kind: str) -> None:
        self.ledger.seen[kind] += 1
        self.to_workers.clear()
        self.to_actor = [event for event in self.to_actor if self.chance.random() < 0.5]
        for worker in self.workers.values():
            worker.hang_up()
        self.world.restart()
        self._retry_unanswered()

    def _retry_unanswered(self) -> None:
        """A client that was not answered asks again with the same ids, or never learns."""
        unanswered, self.asked = list(self.asked.values()), {}
        for tasks in unanswered:
            if self.chance.random() < 0.5:
                self._ask(tasks)

    def _answer(self, decision: Decision) -> None:
        self.world.answer(decision.replies)
        for reply in decision.replies:
            if isinstance(reply, EnqueueReply):
                self.ledger.acked.update(task[0] for task in self.asked.pop(reply.ticket, []))
            elif isinstance(reply, PollReply | RegisterReply):
                self.to_workers.append(reply)

    # ---- the network: no order among calls, and delays

    def _arrivals(self, share: float) -> list[Event]:
        self.chance.shuffle(self.to_actor)
        arrived = [event for event in self.to_actor if self.chance.random() < self._pace(event, share)]
        self.to_actor = [event for event in self.to_actor if not any(event is other for other in arrived)]
        return arrived

    def _pace(self, event: Event, share: float) -> float:
        is_slow = isinstance(event, Registered | Polled) and event.ticket in self.slow
        return share / 5 if is_slow and not self.calm else share

    def _deliver(self, share: float) -> None:
        replies, self.to_workers = self.to_workers, []
        self.chance.shuffle(replies)
        for reply in replies:
            if self.chance.random() >= share:
                self.to_workers.append(reply)
            elif isinstance(reply, RegisterReply):
                self._registered(reply)
            elif isinstance(reply, PollReply):
                self._polled(reply)

    # ---- what happens of itself

    def _act(self) -> None:
        chance = self.chance
        if chance.random() < 0.5:
            self._ask([self._new_task() for _ in range(chance.randint(1, 4))])
        for worker in [worker for worker in self.workers.values() if worker.alive]:
            self._work(worker)
            self._call(worker, doubles=chance.random() < 0.3)
            if chance.random() < 0.01:
                self._kill(worker)
            elif chance.random() < 0.005:
                self.ledger.seen["said to be dead"] += 1
                self._report_dead(worker)
            elif chance.random() < 0.04:
                self._give_up_waiting(worker)
        for pool in ("cpu", "gpu"):
            if chance.random() < 0.02 or not any(w.alive and w.pool == pool for w in self.workers.values()):
                self._hire(pool)
        self._revive()

    def _ask(self, tasks: list[NewTask]) -> None:
        ticket = self.world.ticket()
        self.asked[ticket] = tasks
        self.to_actor.append(Enqueued(ticket, tasks))

    def _new_task(self) -> NewTask:
        chance = self.chance
        new = self.world.new(delay_s=chance.choice([0.0, 0.0, 0.0, 1e-9, 0.3, 5.0]))
        retry = RetryPolicy(chance.randint(1, 3), chance.choice([0.0, 0.2, 2.0]), 2.0, 10.0, 0.5)
        options = Options(
            chance.choice(["Work", "Tiny"]), chance.choice(QUEUES), chance.choice([-1, 0, 0, 2]), retry, "history"
        )
        if not self.calm and chance.random() < 0.04:
            self.poison.add(new[0])
        return (new[0], b"x" * chance.choice([0, 10, 40]), options, new[3])

    def _hire(self, pool: str) -> None:
        name = f"{pool}-{len(self.workers)}"
        self.workers[name] = SimWorker(name, pool, self.chance.choice([1, 1, 2, 4]))

    def _kill(self, worker: SimWorker) -> None:
        worker.alive = False
        self.ledger.lost.add(worker.name)
        if self.chance.random() < 0.5:
            self.ledger.seen["death"] += 1
            self._report_dead(worker)
        else:
            self.ledger.seen["silent death"] += 1

    def _give_up_waiting(self, worker: SimWorker) -> None:
        """Its calls took too long, and arrive later still."""
        self.ledger.seen["impatience"] += 1
        worker.hang_up()
        for event in self.to_actor:
            if isinstance(event, Registered | Polled) and event.worker == worker.name:
                self.slow.add(event.ticket)

    def _report_dead(self, worker: SimWorker) -> None:
        self.ledger.lost.add(worker.name)
        self.to_actor.append(WorkerLost(worker.name, "no heartbeat", charged=self.chance.random() < 0.8))

    def _revive(self) -> None:
        failed = [row for row in self.world.table.done.values() if row.state is State.FAILED]
        if failed and self.chance.random() < 0.03:
            self.ledger.seen["retried by hand"] += 1
            row = self.chance.choice(failed)
            # As the shell would, unless it is asked twice: read, then told.
            self.to_actor.append(RetryAsked(self.world.ticket(), replace(row)))

    # ---- workers

    def _work(self, worker: SimWorker) -> None:
        running = sum(holding.started and holding.outcome is None for holding in worker.held.values())
        for task_id, holding in worker.held.items():
            if not holding.started and running < worker.concurrency:
                holding.started = True
                running += 1
                key = (task_id, self.world.table.revivals[task_id], holding.attempt)
                self.ledger.runs[key].append(worker.name)
                if task_id in self.poison:
                    self.ledger.seen["poison"] += 1
                    return self._kill(worker)
            elif holding.started and holding.outcome is None and self.chance.random() < 0.5:
                holding.outcome = self._end(task_id, holding)
        return None

    def _end(self, task_id: TaskId, holding: Holding) -> Outcome:
        chance, lease = self.chance, holding.lease
        seconds = 0.0001 if holding.type == "Tiny" else chance.choice([0.0001, 0.001, 2.0])
        if chance.random() < 0.3:
            return (task_id, lease, False, b"{}", f"lease {lease}", seconds, chance.uniform(-1, 1), [])
        children = [self._new_task()] if chance.random() < 0.1 else []
        return (task_id, lease, True, b"%d" % lease, "", seconds, 0.0, children)

    def _call(self, worker: SimWorker, doubles: bool) -> None:
        """Register, or report and ask. In a doubled report the outcome is also part of another call under way."""
        if worker.session is None:
            if worker.registering is None:
                worker.registering = self.world.ticket()
                held = [(task_id, holding.lease) for task_id, holding in worker.held.items()]
                self.to_actor.append(Registered(worker.registering, worker.name, worker.pool, worker.concurrency, held))
            return
        under_way = {lease for leases in worker.calls.values() for lease in leases}
        outcomes = [
            holding.outcome
            for task_id, holding in worker.held.items()
            if holding.outcome is not None and (doubles or (task_id, holding.lease) not in under_way)
        ][:MAX_OUTCOMES]
        reported = [(outcome[0], outcome[1]) for outcome in outcomes]
        if not worker.calls or ((reported or worker.back) and len(worker.calls) < 3):
            self.ledger.seen["doubled report"] += any(lease in under_way for lease in reported)
            back = list(worker.back)
            if doubles and back:
                self.ledger.seen["doubled return"] += 1
            else:
                worker.back.clear()
            ticket = self.world.ticket()
            worker.calls[ticket] = reported
            self.poll_epochs[ticket] = self.world.epoch
            self.to_actor.append(Polled(ticket, worker.name, worker.session, outcomes, back))

    def _registered(self, reply: RegisterReply) -> None:
        for worker in self.workers.values():
            if worker.alive and worker.registering == reply.ticket:
                worker.session, worker.registering = reply.session, None
                self.ledger.seen["dropped lease"] += len(reply.dropped)
                for task_id in reply.dropped:
                    worker.held.pop(task_id, None)

    def _polled(self, reply: PollReply) -> None:
        for worker in self.workers.values():
            if worker.alive and reply.ticket in worker.calls:
                self._receive(worker, worker.calls.pop(reply.ticket), reply)

    def _receive(self, worker: SimWorker, reported: list[tuple[TaskId, int]], reply: PollReply) -> None:
        if reply.leases is None:
            worker.hang_up()
            return
        for task_id, number in reported:
            if task_id in worker.held and worker.held[task_id].lease == number:
                del worker.held[task_id]
        for lease in reply.leases:
            worker.held[lease[0]] = Holding(lease[1], lease[2], lease[3])
        for task_id, number in reply.recalled:
            holding = worker.held.get(task_id)
            if holding is not None and holding.lease == number and not holding.started:
                self.ledger.seen["recall"] += 1
                del worker.held[task_id]
                worker.back.append((task_id, number))

    # ---- what must hold

    def _check(self, decision: Decision) -> None:
        self._check_outcomes(decision)
        self._check_order(decision)

    def _check_outcomes(self, decision: Decision) -> None:
        """Each attempt ends as its own lease ended, and no call of an earlier reign is heard."""
        writes = decision.writes
        for _, lease, error in [row[:3] for row in writes.failed] + [(*row[:2], row[4]) for row in writes.retried]:
            assert error in {f"lease {lease}", "WorkerDied: no heartbeat"} or "silent" in error
        assert all(body == b"%d" % lease for _, lease, body in writes.succeeded)
        for reply in decision.replies:
            if isinstance(reply, PollReply) and self.poll_epochs[reply.ticket] != self.world.epoch:
                assert reply.leases is None

    def _check_order(self, decision: Decision) -> None:
        """Nothing that was left waiting came before what was claimed, by a rank of our own reckoning."""
        table, settings = self.world.table, self.world.settings
        claimed = {claim[0] for claim in decision.writes.claims}
        claimed.update(task.id for task in decision.writes.inserts if task.state is State.RUNNING)
        last: dict[str, tuple[float, TaskId]] = {}
        for row in table.live.values():
            if row.state in {State.QUEUED, State.RUNNING}:
                aging_s = settings.rules(row.queue).aging_s
                assert row.rank == rank(row.ready_at, row.options.priority, aging_s)
            if row.id in claimed and not row.losses:
                last[row.queue] = max(last.get(row.queue, ready_key(row)), ready_key(row))
        for row in table.live.values():
            if row.state is State.QUEUED and not row.losses and row.queue in last:
                assert ready_key(row) > last[row.queue], "the best rank goes first"

    def _calm_down(self) -> None:
        """The faults stop; everything must come to an end."""
        self.calm = True
        self.poison.clear()
        self._hire("cpu")
        self._hire("gpu")
        table = self.world.table
        for _ in range(ROUNDS):
            self.world.now += self.chance.choice([0.1, 1.0, 5.0])
            for worker in [worker for worker in self.workers.values() if worker.alive]:
                self._work(worker)
                self._call(worker, doubles=False)
            decision = self.world.decide(self._filtered(self._arrivals(1.0)))
            self.world.commit(decision)
            self._check(decision)
            self._answer(decision)
            self._deliver(1.0)
            if not table.live and not self.to_actor:
                return
        raise AssertionError(f"{len(table.live)} tasks never end: {list(table.live.values())[:3]}")

    def _judge(self) -> None:
        table, ledger = self.world.table, self.ledger
        assert ledger.acked <= table.done.keys(), "an acknowledged task is never lost"
        for task_id, row in table.done.items():
            assert table.ends[task_id] == 1 + table.revivals[task_id], "one final state"
            if row.state is State.FAILED:
                assert row.attempt == row.options.retry.max_attempts, "no attempt is taken away"
        for (task_id, _, attempt), workers in ledger.runs.items():
            kept = [worker for worker in workers if worker not in ledger.lost]
            assert len(kept) <= 1, f"attempt {attempt} of {task_id.hex()} ran twice: {workers}"
            assert attempt <= table.done[task_id].options.retry.max_attempts
