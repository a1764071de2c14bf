"""What really happened, written down by clients and workers. The core never reads it; it is the judge."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from asyncproc.core.decision import Writes
from asyncproc.core.events import SUCCEEDED, Lease, Outcome
from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import FINAL, State
from asyncproc.core.task import NewTask, TaskId
from simulation.agenda import Agenda
from simulation.family import may_start
from simulation.rules import Rule, Violation, require
from simulation.table import Table


@dataclass(slots=True)
class Run:
    """A worker began an attempt."""

    lease: int
    attempt: int
    worker: str
    revival: int
    granted_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    checkpoint: bytes | None = None
    """What it left last for the next attempt."""


@dataclass(slots=True)
class Ledger:
    agenda: Agenda
    table: Table
    posted: dict[TaskId, NewTask] = field(default_factory=dict)
    """Every task that a client or a parent made."""
    contents: defaultdict[TaskId, list[tuple[int, NewTask]]] = field(default_factory=lambda: defaultdict(list))
    """What tasks were replaced by, each with the number of the last lease before."""
    due_at: dict[TaskId, float] = field(default_factory=dict)
    """The earliest instant at which the task may start next, by the client's delay or its last failure."""
    parents: dict[TaskId, tuple[TaskId, bytes]] = field(default_factory=dict)
    """Of each child the task that made it, and the result it came with."""
    acked: set[TaskId] = field(default_factory=set)
    tries: defaultdict[str, list[tuple[TaskId, ...]]] = field(default_factory=lambda: defaultdict(list))
    """Of each idempotency key the tasks of each time it was sent."""
    taken: set[TaskId] = field(default_factory=set)
    """Rows that somebody deleted."""
    purged: set[TaskId] = field(default_factory=set)
    """Tasks that somebody wanted to be cancelled while they waited."""
    revivals_acked: set[TaskId] = field(default_factory=set)
    granted: dict[tuple[TaskId, int], tuple[str, float]] = field(default_factory=dict)
    """Worker and instant of every lease that is on record."""
    left: dict[tuple[TaskId, int], bytes | None] = field(default_factory=dict)
    """The checkpoint that was on record when a lease was."""
    runs: defaultdict[TaskId, list[Run]] = field(default_factory=lambda: defaultdict(list))
    cut_off_at: dict[str, float] = field(default_factory=dict)
    """When a worker last died, was said to have, or was silent for too long."""
    again: int = 0
    """Attempts that were run again because their worker was lost."""

    def post(self, task: NewTask, parent: tuple[TaskId, bytes] | None = None) -> None:
        self.posted[task[0]] = task
        self.due_at[task[0]] = self.agenda.now + task[3]
        if parent is not None:
            self.parents[task[0]] = parent

    def content(self, task_id: TaskId, lease: int) -> tuple[int, NewTask]:
        """What a task is under this lease, and how often it had been replaced by then."""
        contents = [new for before, new in self.contents[task_id] if before < lease]
        return len(contents), contents[-1] if contents else self.posted[task_id]

    def cut_off(self, worker: str) -> None:
        self.cut_off_at[worker] = self.agenda.now

    def committed(self, writes: Writes) -> None:
        """Leases and failures that are on record from now on."""
        for task_id, lease, _, _, worker in writes.claims:
            self._granted(task_id, lease, worker)
        for task in writes.inserts:
            if task.state is State.RUNNING:
                self._granted(task.id, task.lease, task.worker)
        for task_id, ready_at, _ in writes.revived:
            self.due_at[task_id] = ready_at
        for task_id, lease, _, _, _, body in writes.retried:
            self._tried_again(task_id, lease, body)

        for task_id, _, state, *_, was_ready_at, new_state, _, _, ready_at, _ in writes.changed:
            row = self.table.live.get(task_id)
            if (state, was_ready_at) != (new_state, ready_at) and row is not None and row.ready_at == ready_at:
                self.due_at[task_id] = ready_at

        for task_id, lease, *_, ready_at, _, new in writes.replaced:
            row = self.table.live.get(task_id)
            if row is not None and row.payload == new[1] and (lease, new) not in self.contents[task_id][-1:]:
                self.contents[task_id].append((lease, new))
                self.due_at[task_id] = ready_at

    def _tried_again(self, task_id: TaskId, lease: int, body: bytes) -> None:
        run = self._run_that_ended(task_id, lease, False, body)
        if run is not None and run.checkpoint is not None and task_id not in self.taken:
            on_record = self.table.checkpoints.get(task_id)
            left = f"{name(task_id)} left {run.checkpoint!r}, and {on_record!r} is on record"
            require(on_record == run.checkpoint, Rule.CHECKPOINT, left)
        if run is not None and run.ended_at is not None and run.outcome is not None:
            wait_s = backoff_s(self.content(task_id, lease)[1][2].retry, run.attempt, run.outcome[6])
            self.due_at[task_id] = run.ended_at + wait_s

    def _granted(self, task_id: TaskId, lease: int, worker: str) -> None:
        row = self.table.live.get(task_id)
        if task_id in self.taken or row is None or (row.lease, row.worker, row.state) != (lease, worker, State.RUNNING):
            return
        if (task_id, lease) not in self.granted:
            self.left[task_id, lease] = self.table.checkpoints.get(task_id)
        before = self.granted.setdefault((task_id, lease), (worker, self.agenda.now))
        whose = f"{before[0]}'s and {worker}'s"
        require(before[0] == worker, Rule.ONE_LEASE, f"lease {lease} of {name(task_id)} is {whose}")

    def started(self, granted: Lease, worker: str) -> Run:
        """A worker begins an attempt: may it?"""
        now, (task_id, lease, attempt, _, _, payload, *_) = self.agenda.now, granted
        replaced, content = self.content(task_id, lease)
        if payload != content[1]:
            raise Violation(Rule.PAYLOAD, f"{name(task_id)} starts with {payload!r}")
        if task_id in self.taken:
            # Whoever repeats its call brings back a row that somebody deleted, and it begins at lease 1 again.
            return Run(lease, attempt, worker, 0, now)
        holder, granted_at = self.granted.get((task_id, lease), ("nobody", 0.0))
        if holder != worker:
            raise Violation(Rule.ON_RECORD, f"{worker} starts lease {lease} of {name(task_id)}, which is {holder}'s")
        left = self.left[task_id, lease]
        if next(iter(granted[9:]), None) != left:
            raise Violation(
                Rule.CHECKPOINT, f"{name(task_id)} starts lease {lease} with {granted[9:]}, left is {left!r}"
            )
        knows = granted_at > self.cut_off_at.get(worker, float("-inf"))
        if knows and now < self.due_at[task_id] - 1e-6:
            early_s = self.due_at[task_id] - now
            raise Violation(Rule.DUE, f"{name(task_id)} starts {early_s:.6f} s early on {worker}")
        require(may_start(self.table, self.posted[task_id]), Rule.FAMILY, f"{name(task_id)} starts beside its parents")
        parent, result = self.parents.get(task_id, (None, b""))
        if parent is not None and self.table.bodies.get(parent) != result:
            raise Violation(
                Rule.EXPECTED, f"{name(task_id)} is the child of a run of {name(parent)} that does not count"
            )
        run = Run(lease, attempt, worker, self.table.revivals[task_id] + replaced, granted_at)
        for earlier in self.runs[task_id]:
            self._follows(task_id, run, earlier)
        self.runs[task_id].append(run)
        return run

    def _follows(self, task_id: TaskId, run: Run, other: Run) -> None:
        """Of two attempts the one of the older lease failed, or its worker was lost while it had the lease: it may
        even begin later, on a worker that does not know."""
        first, second = (other, run) if other.lease <= run.lease else (run, other)
        failed = first.outcome is not None and first.outcome[2] != SUCCEEDED
        if failed and first.lease < second.lease and (first.revival, first.attempt) < (second.revival, second.attempt):
            return
        if first.granted_at <= self.cut_off_at.get(first.worker, float("-inf")):
            self.again += other is self.runs[task_id][-1]
            return
        raise Violation(
            Rule.ONCE,
            f"{name(task_id)} runs as attempt {run.attempt}, lease {run.lease} on {run.worker}, "
            f"after attempt {other.attempt}, lease {other.lease} on {other.worker}",
        )

    def ended(self, run: Run, outcome: Outcome) -> None:
        run.ended_at, run.outcome = self.agenda.now, outcome

    def judge_writes(self, writes: Writes, charged: Iterable[TaskId]) -> None:
        """Before they are applied: each end is one that its own lease came to."""
        came_back = {row[:2] for row in (*writes.requeued, *writes.retried, *writes.snoozed)}
        for task_id, lease, _ in writes.cancelled:
            row = self.table.live.get(task_id)
            runs = row is not None and row.lease == lease and row.state is State.RUNNING
            runs = runs and (task_id, lease) not in came_back
            asked = (row is not None and row.stop_reason is not None) or any(
                stop[0] == task_id for stop in writes.stopping
            )
            require(asked or not runs, Rule.OWN_OUTCOME, f"{name(task_id)} is cancelled while it runs")
            require(task_id in self.purged, Rule.EXPECTED, f"nobody wanted {name(task_id)} to be cancelled")
        charged = set(charged)
        charged |= self.taken
        for task_id, lease, body in writes.succeeded:
            if task_id not in self.taken:
                self._own(task_id, lease, True, body)
        failures = [(row[0], row[1], row[3]) for row in writes.failed]
        failures += [(row[0], row[1], row[5]) for row in writes.retried]
        for task_id, lease, body in failures:
            if task_id not in charged:
                self._own(task_id, lease, False, body)

    def _own(self, task_id: TaskId, lease: int, succeeded: bool, body: bytes) -> None:
        if self._run_that_ended(task_id, lease, succeeded, body) is None:
            raise Violation(Rule.OWN_OUTCOME, f"lease {lease} of {name(task_id)} did not end with {body!r}")

    def _run_that_ended(self, task_id: TaskId, lease: int, succeeded: bool, body: bytes) -> Run | None:
        for run in self.runs[task_id]:
            told = run.outcome
            if run.lease == lease and told and (told[2] == SUCCEEDED, told[3]) == (succeeded, body):
                return run
        return None

    def judge(self) -> None:
        """At the end, when nothing waits any more."""
        table = self.table
        for task_id in self.acked:
            if task_id not in table.done and task_id not in self.taken:
                raise Violation(Rule.ACKNOWLEDGED, f"{name(task_id)} is in neither table")
        for task_id, row in table.done.items():
            require(task_id in self.posted, Rule.EXPECTED, f"{name(task_id)} was posted by nobody")
            self._judge_end(task_id, row.state, row.attempt, row.lease)
        for key, tries in self.tries.items():
            made = [ids for ids in tries if any(task_id in table.done or task_id in self.taken for task_id in ids)]
            require(len(made) <= 1, Rule.ONE_ANSWER, f"{key} made {len(made)} sets of tasks")
        for task_id in self.revivals_acked:
            require(table.revivals[task_id], Rule.ACKNOWLEDGED, f"a retry of {name(task_id)} is lost")

    def _judge_end(self, task_id: TaskId, state: State, attempt: int, lease: int) -> None:
        table = self.table
        require(state in FINAL, Rule.FINAL, f"{name(task_id)} is {state} and done")
        ends, revivals = table.ends[task_id], table.revivals[task_id]
        require(task_id not in table.live, Rule.FINAL, f"{name(task_id)} is done and not done")
        require(ends == 1 + revivals, Rule.FINAL, f"{name(task_id)} ended {ends} times, was revived {revivals} times")
        most = self.content(task_id, lease + 1)[1][2].retry.max_attempts
        least = {State.FAILED: most, State.CANCELLED: 0}.get(state, 1)
        if task_id in table.edges.ended_with_parents:
            least = 0
        counted = least <= attempt <= most
        require(counted, Rule.ATTEMPTS, f"{name(task_id)} is {state} after attempt {attempt} of {most}")


def backoff_s(policy: RetryPolicy, attempt: int, spread: float) -> float:
    """The wait after a failure by a reckoning of our own."""
    wait_s = policy.base_s
    for _ in range(1, attempt):
        wait_s *= policy.factor
    return min(wait_s, policy.cap_s) * (1.0 + policy.jitter * spread)


def name(task_id: TaskId) -> str:
    return f"task {int.from_bytes(task_id)}"
