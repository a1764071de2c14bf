"""Who goes first: by rank within a queue, by weight between queues, and nobody before its time."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Final, TypeAlias

from asyncproc.core.affinity import LOOK_AHEAD
from asyncproc.core.batches import Batching
from asyncproc.core.decision import Decision, Key
from asyncproc.core.rank import rank
from asyncproc.core.settings import CoreSettings
from asyncproc.core.shape import pool_name
from asyncproc.core.states import DUE_LATER, State
from asyncproc.core.steering import Rules
from asyncproc.core.step import Core
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
    changed |= {row[0] for row in decision.writes.replaced if row[7] <= now}
    for task_id in [claim[0] for claim in decision.writes.claims] + [row[0] for row in decision.writes.came_due]:
        row = table.live.get(task_id)
        if row is not None and row.state in DUE_LATER and row.ready_at > now and task_id not in changed:
            raise Violation(Rule.DUE, f"{name(task_id)} is due in {row.ready_at - now:.6f} s")
    for task in decision.writes.inserts:
        if task.state not in {State.BLOCKED, *DUE_LATER} and task.ready_at > now:
            raise Violation(Rule.DUE, f"{name(task.id)} is new, {task.state} and due later")


def the_best_go_first(
    started: Container[TaskId],
    table: Table,
    settings: CoreSettings,
    but: Container[TaskId],
    rules: Rules | None,
    batching: Mapping[str, Batching],
) -> None:
    """After the commit: nothing that was left waiting came before what was started, by a rank of our own reckoning.

    Suspects stand apart: each waits for a worker of its own. Where there are rules, it holds among those that meet the
    same gates. Who rides along in a batch may come before others, but for those of its own lane; the first of its type
    on a worker does not, unless it joins one that waits.
    """
    waiting: list[Task] = []
    begun: list[Task] = []
    for row in table.live.values():
        if row.state not in {State.QUEUED, State.RUNNING} or row.id in but:
            continue
        aging_s = settings.queues.get(row.queue, settings.default_rules).aging_s
        if row.rank != rank(row.ready_at, row.options.priority, aging_s):
            raise Violation(Rule.RANK, f"{name(row.id)} has rank {row.rank}, ready at {row.ready_at}")
        if row.state is State.QUEUED and not row.losses:
            waiting.append(row)
        elif row.id in started and not row.losses:
            begun.append(row)
    # What waits for the worker that ran its key last lets others go before it.
    is_affine = any(row.options.affinity_key for row in (*waiting, *begun))
    waiting = [row for row in waiting if not row.options.affinity_key]
    last = _worst_of_each_lane(begun)
    if rules is None and not is_affine:
        last |= _worst_of_each_queue(begun, batching)
    for row in waiting:
        for place in ((row.queue, row.shape, None), (row.queue, row.shape, lane_key(row.options))):
            if place in last and ready_key(row) < last[place]:
                raise Violation(Rule.ORDER, f"{name(row.id)} waits in {row.queue} while one of a worse rank starts")


_Place: TypeAlias = tuple[str, str, LaneKey | None]
"""Queue, shape of resources, and the lane where it is about one."""


def _worst_of_each_lane(begun: Iterable[Task]) -> dict[_Place, Key]:
    last: dict[_Place, Key] = {}
    for row in begun:
        lane = (row.queue, row.shape, lane_key(row.options))
        last[lane] = max(last.get(lane, ready_key(row)), ready_key(row))
    return last


def _worst_of_each_queue(begun: Iterable[Task], batching: Mapping[str, Batching]) -> dict[_Place, Key]:
    """Of those that did not ride along."""
    last: dict[_Place, Key] = {}
    met: set[tuple[str, str, str]] = set()
    for row in sorted(begun, key=ready_key):
        aboard, limits = (row.worker, row.queue, row.options.type), batching.get(row.options.type)
        if limits is None or (not limits.wait_s and aboard not in met):
            last[row.queue, row.shape, None] = ready_key(row)
        met.add(aboard)
    return last


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
        if row.state in DUE_LATER and row.id not in but and row.id not in table.edges.untold and not wakes:
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
    held_up |= _behind_keys(table, settings)
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


def _is_large(settings: CoreSettings) -> bool:
    return settings.window >= LARGE and settings.window_bytes >= 1 << 20


def _behind_keys(table: Table, settings: CoreSettings) -> set[TaskId]:
    """Those that may wait for a worker, or behind more of those than are looked at."""
    lanes: defaultdict[tuple[str, LaneKey], list[Task]] = defaultdict(list)
    for row in table.live.values():
        if row.state is State.QUEUED and not row.losses:
            lanes[row.queue, lane_key(row.options)].append(row)
    held_up: set[TaskId] = set()
    for rows in lanes.values():
        keyed = [row.id for row in rows if row.options.affinity_key]
        held_up.update(keyed)
        if keyed and (len(keyed) >= LOOK_AHEAD or not _is_large(settings)):
            held_up.update(row.id for row in rows)
    return held_up


def nobody_is_kept_from_home(core: Core, idle: Mapping[str, str], table: Table, but: Container[TaskId]) -> None:
    """Where the worker that ran its key last has nothing to do, no task of the key waits."""
    rows = [row for row in table.live.values() if row.state is State.QUEUED and row.options.affinity_key]
    suspects = {core.settings.pool(row.queue) for row in table.live.values() if row.losses}
    if len(rows) >= LOOK_AHEAD or not _is_large(core.settings):
        return
    for row in rows:
        pool = core.backlog.pool_of(row.queue, row.shape)
        home = pool.homes.of(row)
        if home is not None and home.name in idle and row.id not in but and pool.name not in suspects:
            raise Violation(Rule.AFFINITY, f"{name(row.id)} waits, and {home.name} has nothing to do")


class Patience:
    """How long tasks wait for the worker that ran their key last, while others of the pool have nothing to do."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._since: dict[tuple[TaskId, int], float] = {}
        self.held_up: set[TaskId] = set()
        """By limits, as last seen."""

    def give_up(self) -> None:
        """What happened since is not known."""
        self._since.clear()

    def judge(self, idle: Counter[str], table: Table, but: Container[TaskId], rules: Rules | None, now: float) -> None:
        if not _is_large(self._settings):
            return  # one waits after the other
        self.held_up = held_up = set() if rules is None else blocked(table.live.values(), table, rules, now)
        # One of a pool may be kept for suspects.
        pools = {pool for pool, workers in idle.items() if workers > 1}
        waiting = {
            (row.id, row.lease)
            for row in table.live.values()
            if row.state is State.QUEUED
            and row.options.affinity_key
            and not row.losses
            and row.id not in but
            and row.id not in held_up
            and self._settings.pool(row.queue) in pools
        }
        self._since = {entry: self._since.get(entry, now) for entry in waiting}
        for (task_id, _), since in self._since.items():
            # Behind as many as are looked at it is met later.
            if now - since > 2 * self._settings.affinity_s + 0.1:
                raise Violation(Rule.AFFINITY, f"{name(task_id)} waits for its worker for {now - since:.3f} s")


class Shares:
    """Starts by queue while the same queues of a pool have work, over one reign."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._large = _is_large(settings)
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
