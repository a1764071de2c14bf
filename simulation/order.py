"""Who goes first: by rank within a queue, by weight between queues, and nobody before its time."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Final

from asyncproc.core.decision import Decision, Key
from asyncproc.core.rank import rank
from asyncproc.core.settings import CoreSettings
from asyncproc.core.shape import pool_name
from asyncproc.core.states import DUE_LATER, State
from asyncproc.core.steering import Rules
from asyncproc.core.task import LaneKey, Task, TaskId, lane_key
from simulation.ledger import name
from simulation.rules import Rule, Violation
from simulation.steering import blocked
from simulation.table import Table, ready_key

LARGE: Final = 1000
"""A window that is never short of tasks here. A smaller one may hold too few of a queue for its share of one step."""


def started_in(decision: Decision) -> set[TaskId]:
    started = {claim[0] for claim in decision.writes.claims}
    started.update(task.id for task in decision.writes.inserts if task.state is State.RUNNING)
    return started


def nobody_is_early(decision: Decision, table: Table, now: float) -> None:
    """Before the commit: what starts or becomes ready is due by what the table says, or was told to run earlier."""
    changed = {row[0] for row in decision.writes.changed if row[9] <= now}
    for task_id in [claim[0] for claim in decision.writes.claims] + [row[0] for row in decision.writes.came_due]:
        row = table.live.get(task_id)
        if row is not None and row.state in DUE_LATER and row.ready_at > now and task_id not in changed:
            raise Violation(Rule.DUE, f"{name(task_id)} is due in {row.ready_at - now:.6f} s")
    for task in decision.writes.inserts:
        if task.state not in DUE_LATER and task.ready_at > now:
            raise Violation(Rule.DUE, f"{name(task.id)} is new, {task.state} and due later")


def the_best_go_first(
    started: Container[TaskId], table: Table, settings: CoreSettings, but: Container[TaskId], rules: Rules | None
) -> None:
    """After the commit: nothing that was left waiting came before what was started, by a rank of our own reckoning.

    Suspects stand apart: each waits for a worker of its own. Where there are rules, it holds among those that meet the
    same gates.
    """
    last: dict[tuple[str, str, LaneKey | None], Key] = {}
    waiting: list[Task] = []
    for row in table.live.values():
        if row.state not in {State.QUEUED, State.RUNNING} or row.id in but:
            continue
        aging_s = settings.queues.get(row.queue, settings.default_rules).aging_s
        if row.rank != rank(row.ready_at, row.options.priority, aging_s):
            raise Violation(Rule.RANK, f"{name(row.id)} has rank {row.rank}, ready at {row.ready_at}")
        if row.losses:
            continue
        if row.state is State.QUEUED:
            waiting.append(row)
        elif row.id in started:
            place = (row.queue, row.shape, None if rules is None else lane_key(row.options))
            last[place] = max(last.get(place, ready_key(row)), ready_key(row))
    for row in waiting:
        place = (row.queue, row.shape, None if rules is None else lane_key(row.options))
        if place in last and ready_key(row) < last[place]:
            raise Violation(Rule.ORDER, f"{name(row.id)} waits in {row.queue} while one of a worse rank starts")


def all_are_where_they_belong(
    started: Iterable[TaskId], table: Table, settings: CoreSettings, pools: Mapping[str, str]
) -> None:
    """After the commit: what starts has a worker of the pool for its queue and for what it asks.

    `pools` are those of the workers, by name."""
    for row in (table.live[task_id] for task_id in started if task_id in table.live):
        pool = pool_name(settings.pool(row.queue), row.shape)
        if row.state is State.RUNNING and pools.get(row.worker) != pool:
            raise Violation(Rule.PLACE, f"{name(row.id)} of pool {pool} starts on {row.worker}")


def nothing_sleeps(table: Table, now: float, wake_at: float | None, but: Container[TaskId]) -> None:
    """After a step that asked for no pages: what is due is ready, and what is not yet will wake the core."""
    for row in table.live.values():
        wakes = wake_at is not None and wake_at <= max(now, row.ready_at)
        if row.state in DUE_LATER and row.id not in but and not wakes:
            raise Violation(Rule.NOT_ASLEEP, f"nothing wakes the core for {name(row.id)}, due at {row.ready_at}")


def nobody_idles(
    idle: Counter[str],
    table: Table,
    settings: CoreSettings,
    but: Container[TaskId],
    rules: Rules | None,
    now: float,
) -> None:
    """After a step that asked for no pages; `idle` counts workers by pool that ask and hold nothing.

    One of a pool may be kept for suspects.
    """
    ready: Counter[str] = Counter()
    kept: set[str] = set()
    held_up = set() if rules is None else blocked(table.live.values(), table, rules, now)
    for row in table.live.values():
        if row.id not in but and row.id not in held_up and row.state in {State.QUEUED, State.RUNNING}:
            pool = pool_name(settings.pool(row.queue), row.shape)
            if row.losses:
                kept.add(pool)
            elif row.state is State.QUEUED:
                ready[pool] += 1
    for pool, workers in idle.items():
        if ready[pool] and workers > (pool in kept):
            raise Violation(Rule.IDLE_HANDS, f"{workers} workers of {pool} wait beside {ready[pool]} ready tasks")


class Shares:
    """Starts by queue while the same queues of a pool have work, over one reign."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._large = settings.window >= LARGE and settings.window_bytes >= 1 << 20
        self._busy: dict[str, frozenset[str]] = {}
        self._served: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._paid: Counter[str] = Counter()
        """Starts that came to nothing; as many more are free."""

    def give_up(self) -> None:
        """For the rest of the reign: what a queue is owed cannot be told from outside."""
        self._large = False

    def committed(
        self, started: Iterable[TaskId], given_back: Iterable[TaskId], table: Table, but: Container[TaskId]
    ) -> None:
        if not self._large:
            return
        busy: defaultdict[str, set[str]] = defaultdict(set)
        for row in table.live.values():
            if row.state is State.QUEUED and not row.losses and row.id not in but:
                busy[self._settings.pool(row.queue)].add(row.queue)
        self._paid.update(table.live[task_id].queue for task_id in given_back if task_id in table.live)
        charged = self._charged(table.live[task_id] for task_id in started if task_id in table.live)
        for pool in sorted({*busy, *self._busy}):
            queues = frozenset(busy[pool])
            if self._busy.get(pool) != queues:
                self._busy[pool] = queues
                self._served[pool].clear()
                continue
            self._served[pool].update({queue: charged[queue] for queue in queues})
            self._judge(queues, self._served[pool])

    def _charged(self, rows: Iterable[Task]) -> Counter[str]:
        served = Counter(row.queue for row in rows if not row.losses)
        for queue in served:
            free = min(served[queue], self._paid[queue])
            served[queue] -= free
            self._paid[queue] -= free
        return served

    def _judge(self, queues: frozenset[str], served: Counter[str]) -> None:
        """By stride scheduling two queues are never further apart than one start of the lighter one; here at both
        ends of the time that is looked at."""
        if len(queues) < 2:
            return
        weights = {
            queue: self._settings.queues.get(queue, self._settings.default_rules).weight for queue in sorted(queues)
        }
        passed = {queue: served[queue] / weight for queue, weight in weights.items()}
        apart = max(passed.values()) - min(passed.values())
        if apart > 2.0 / min(weights.values()) + 1e-9:
            raise Violation(Rule.SHARES, f"{dict(served)} starts by weights {weights}")
