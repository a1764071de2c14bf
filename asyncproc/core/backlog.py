"""Every task in memory in its place: running, ready in its lane, due later, or a suspect."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from asyncproc.core.crowd import bounded
from asyncproc.core.decision import Key, PageWanted
from asyncproc.core.events import Page
from asyncproc.core.gates import Draw, Gate, Gates, RunningLimit, give_back, shut, take
from asyncproc.core.known_types import KnownTypes
from asyncproc.core.lanes import Lane
from asyncproc.core.pool import Pool
from asyncproc.core.rank import rank
from asyncproc.core.settings import CoreSettings
from asyncproc.core.shape import JOINT, pool_name
from asyncproc.core.states import DUE_LATER, State, Trigger, after
from asyncproc.core.steering import Rules
from asyncproc.core.streams import Stream
from asyncproc.core.task import LaneKey, Options, Task, TaskId, lane_key
from asyncproc.core.window import START, Window
from asyncproc.core.workers import Worker

LEAST_OF_A_LANE: Final = 16
"""Tasks of one lane that are held in memory, however many lanes there are."""
LEAST_BYTES_OF_A_LANE: Final = 64 * 1024
PAGES_A_STEP: Final = 256
"""A cycle waits for its pages, and all that arrives waits for the cycle."""
_IDLE_LIMITS: Final = 1_000
_IDLE_POOLS: Final = 100


class Backlog:
    """What is ready goes to the pools in rank order, what is due later waits for its instant; the rest is on disk."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self.tasks: dict[TaskId, Task] = {}
        """All tasks in memory, the running ones included."""
        self.pools: dict[str, Pool] = {}
        self.rules = Rules(settings.queues, default=settings.default_rules)
        self.bounded = bounded(self.rules)
        """Queues in which new tasks may find no room."""
        self.gates = Gates(self.rules, {}, 0.0)
        self._known: dict[str, KnownTypes] = {}
        self._unknown: dict[tuple[str, str], Gate] = {}
        """By pool and type, before which the tasks wait that not all of its workers know."""
        self.paused = False
        """Nothing begins, whatever its queue."""
        self._pauses_end: float | None = None
        self._streams: dict[str, Stream] = {}
        self._touched: dict[Lane, None] = {}
        """Lanes that changed, and may hold too much or too little now."""
        self._due = Window(START)
        self._known_limits = _IDLE_LIMITS
        self._known_pools = _IDLE_POOLS
        self.now = 0.0

    def begin(self, now: float) -> None:
        """A new step: what only time brings."""
        self.now = now
        if self._pauses_end is not None and self._pauses_end <= now:
            self.obey(self.rules)
        for bucket in list(self.gates.waiting()):
            bucket.let_on(now)
        for pool in self.pools.values():
            if len(pool.homes):
                pool.homes.let_go(now)

    def next_change(self) -> float | None:
        """When a pause ends or a token bucket lets somebody on."""
        instants = [self.gates.next_opening(self.now), self._pauses_end]
        instants += [pool.homes.next_change() for pool in self.pools.values()]
        return min((at for at in instants if at is not None), default=None)

    def pool(self, name: str) -> Pool:
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Pool(
                name, self._settings.prefetch_s, self._settings.max_held, self._settings.affinity_s
            )
        return pool

    def _pool_name(self, queue: str, shape: str) -> str:
        rules = self.rules
        base = rules.queue(queue).pool or rules.pool_of.get(queue) or self._settings.pool(queue)
        return pool_name(base, shape) if shape else base

    def pool_of(self, queue: str, shape: str = "") -> Pool:
        return self.pool(self._pool_name(queue, shape))

    def transfer(self, worker: Worker, pool: str) -> None:
        """A worker known by its rows alone was put where their queue belongs, in a pool that need not be its."""
        self.pool(worker.pool).forget(worker)
        worker.pool = pool
        self.pool(pool).workers[worker.name] = worker

    def stream(self, queue: str, shape: str = "") -> Stream:
        """The queue, or its part for a shape of resources, made at first sight."""
        name = pool_name(queue, shape) if shape else queue
        stream = self._streams.get(name)
        if stream is None:
            lineup = self.pool_of(queue, shape).lineup
            stream = self._streams[name] = Stream(queue, self.rules.queue(queue), lineup, self._touched, shape)
            stream.paused = self._is_paused(queue)
            lineup.add(stream)
        return stream

    def lane(self, queue: str, key: LaneKey, end: Key | None = None) -> Lane:
        """The lane, made at first sight; `end` says where its part in memory ends then."""
        stream = self.stream(queue, key[3])
        lane = stream.lanes.get(key)
        if lane is None:
            lane = stream.lane(key, end)
            lane.obey(self._gates_of(queue, *key))
        return lane

    def open(self, queue: str, key: LaneKey) -> None:
        """A lane of which the table may have rows."""
        self._touched[self.lane(queue, key, START)] = None

    def make_ready(self, task: Task) -> None:
        """Give the task its rank, which it keeps until an attempt ends, and its place."""
        options = task.options
        task.rank = rank(task.ready_at, options.priority, self.stream(options.queue, options.resources).rules.aging_s)
        self.admit(task)

    def admit(self, task: Task) -> None:
        """Take a ranked task into memory if it is in reach of its window; suspects always are."""
        if task.losses:
            self.pool_of(task.queue, task.shape).suspect(task)
            self.tasks[task.id] = task
        elif self.lane(task.queue, lane_key(task.options)).push(task):
            self.tasks[task.id] = task
        else:
            self.tasks.pop(task.id, None)

    def defer(self, task: Task) -> None:
        """The task waits for its `ready_at`."""
        if self._due.push(task.ready_at, task):
            self.tasks[task.id] = task
        else:
            self.tasks.pop(task.id, None)

    def withdraw(self, task: Task) -> None:
        """Take a waiting task out of its place; nothing where it is on disk alone."""
        if self.tasks.pop(task.id, None) is None:
            return
        if task.state in DUE_LATER:
            self._due.discard(task.ready_at, task)
        elif task.losses:
            self.pool_of(task.queue, task.shape).clear({task.id})
        else:
            lane = self.lane(task.queue, lane_key(task.options))
            lane.discard(task)
            if not len(lane) and lane.shut is None:
                # It may be the one that was let on at its gates: others parked there would wait for it for ever.
                lane.pass_on(self.now)

    def is_on_disk(self, task: Task) -> bool:
        """Whether a task that waits in this place would be on disk alone."""
        if task.state is State.BLOCKED:
            return True
        if task.state in DUE_LATER:
            end, key = self._due.end, (task.ready_at, task.id)
        else:
            # Only what its lane may have on disk: one that is not there yet has nothing anywhere.
            stream = self._streams.get(pool_name(task.queue, task.shape))
            lane = None if stream is None else stream.lanes.get(lane_key(task.options))
            end, key = None if lane is None else lane.end, (task.rank, task.id)
        return end is not None and key > end and (task.state in DUE_LATER or not task.losses)

    def come_due(self, now: float, most: int) -> list[Task]:
        """Make ready what is due, at most so many at once."""
        due: list[Task] = []
        while len(due) < most and (at := self.next_due()) is not None and at <= now:
            task = self._due.pop()
            task.state = after(task.state, Trigger.COME_DUE)
            due.append(task)
            self.make_ready(task)
        return due

    def next_due(self) -> float | None:
        head = self._due.peek()
        return None if head is None else head[0]

    # ---- memory and disk

    def take_page(self, page: Page) -> None:
        """Rows from disk take their place; those that are in memory already are left alone."""
        lane = None if page.queue is None else self.lane(page.queue, page.lane)
        if lane is None:
            self._due.page_arrived(page.last, page.complete)
        else:
            lane.page_arrived(page.last, page.complete, len(page.tasks))
        for task in page.tasks:
            if task.id in self.tasks:
                continue
            if task.state is not State.QUEUED:
                self.defer(task)
            elif lane is None or task.losses:
                self.admit(task)
            elif lane.push(task):
                self.tasks[task.id] = task
        if lane is not None:
            self._touched[lane] = None
            if not len(lane) and lane.end is None and lane.shut is None:
                # It may be the one that was let on at its gates: others parked there would wait for it for ever.
                lane.pass_on(self.now)

    def shed(self) -> Iterator[PageWanted]:
        """Hold the bounds of the windows; yields the pages that are wanted where one runs low."""
        wanted = 0
        for lane in list(self._touched):
            page = self._trim(lane)
            del self._touched[lane]
            if page is not None:
                yield page
                wanted += 1
                if wanted >= PAGES_A_STEP:
                    break
        settings = self._settings
        self._leave(self._due.shed(settings.window, settings.window_bytes))
        limit = self._due.wanted(settings.window, settings.window_bytes)
        if limit and self._due.end is not None:
            self._due.paging = True
            yield PageWanted(None, ("", "", "", ""), self._due.end, limit)
        self._tidy()

    def is_behind(self) -> bool:
        """Pages are left for the next step."""
        return bool(self._touched)

    def _trim(self, lane: Lane) -> PageWanted | None:
        stream, settings = lane.stream, self._settings
        # A lane may hold what the others leave, and its share in any case.
        others, lanes = stream.held - len(lane), len(stream.lanes)
        share, most, most_bytes = settings.window, settings.window, settings.window_bytes
        if others:
            share = max(LEAST_OF_A_LANE, most // lanes)
            most = max(share, most - others)
            most_bytes = max(LEAST_BYTES_OF_A_LANE, most_bytes // lanes)
        self._leave(lane.shed(most, most_bytes))
        limit = lane.wanted(most, most_bytes)
        if limit and lane.end is not None:
            # Where all lanes read as if the room were theirs alone, most of it would be left to the disk again.
            room = settings.window - stream.held - stream.coming
            if len(lane) <= share // 2 or room >= settings.window // 8:
                page = PageWanted(stream.queue, lane.key, lane.end, min(limit, max(1, share // 4, room // 2)))
                lane.begin_page(page.limit)
                return page
        if not len(lane) and lane.end is None and any(lane.key[1:]):
            # Nothing of it is left. A lane without keys and resources is one a type, and stays.
            if lane.shut is not None:
                lane.unpark()
            stream.drop(lane)
            if stream.shape and not stream.lanes:
                self._drop(stream)
        return None

    def _drop(self, stream: Stream) -> None:
        """Nothing is left of what asked for these resources."""
        del self._streams[stream.name]
        stream.lineup.remove(stream)
        self.release(self.pool_of(stream.queue, stream.shape))

    def release(self, pool: Pool) -> None:
        """Forget the pool of a shape that has neither work nor workers: clients may think of ever new ones."""
        is_used = pool.workers or len(pool.lineup) or pool.suspects or pool.loners
        if JOINT in pool.name and not is_used:
            self.pools.pop(pool.name, None)
            self._known.pop(pool.name, None)

    def _tidy(self) -> None:
        if len(self.pools) > self._known_pools:
            # Whoever asks about a task, or suspects one, may have made a place for its shape where nothing is.
            for stream in [stream for stream in self._streams.values() if stream.shape and not stream.lanes]:
                self._drop(stream)
            for pool in list(self.pools.values()):
                self.release(pool)
            self._known_pools = 2 * len(self.pools) + _IDLE_POOLS
        if len(self.gates) <= self._known_limits:
            return
        needed = {gate for stream in self._streams.values() for lane in stream.lanes.values() for gate, _ in lane.draws}
        self.gates.tidy(needed)
        self._known_limits = 2 * len(self.gates) + _IDLE_LIMITS

    def reread(self, queue: str, lanes: Iterable[LaneKey]) -> None:
        """Leave a queue to the disk, where its ranks were computed anew. These lanes have rows."""
        for key in lanes:
            self.open(queue, key)
        for stream in [stream for stream in self._streams.values() if stream.queue == queue]:
            for lane in stream.lanes.values():
                self._leave(lane.rewind(START))
                self._touched[lane] = None

    def overlook(self, since: float) -> None:
        """Leave what is due from this instant on to the disk, to be read again: there is more of it than is known."""
        self._leave(self._due.rewind((since, b"")))

    def forget(self, ids: Iterable[TaskId]) -> list[Task]:
        """Drop these wherever they are, and read their part of the table again: what is there is not in memory now."""
        tasks = [self.tasks[task_id] for task_id in dict.fromkeys(ids) if task_id in self.tasks]
        for pool in self.pools.values():
            pool.clear({task.id for task in tasks})
        for task in tasks:
            self._leave(self._due.rewind((task.ready_at, b"")))
            if task.state not in DUE_LATER:
                lane = self.lane(task.queue, lane_key(task.options))
                self._leave(lane.rewind((task.rank, b"")))
                self._touched[lane] = None
            self.stopped(task)
            self.tasks.pop(task.id, None)
        return tasks

    def _leave(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            del self.tasks[task.id]

    # ---- rules

    def may_start(self, task: Task) -> bool:
        """Of a suspect, which waits outside of its lane: whether its gates are open."""
        return not self.paused and not self._is_paused(task.queue) and shut(self.draws(task.options), self.now) is None

    def start(self, task: Task) -> None:
        """A suspect starts."""
        task.draws = self.draws(task.options)
        take(task.draws, self.now)

    def stopped(self, task: Task) -> None:
        """The task does not run any more: what it took of limits is free."""
        if task.draws:
            draws, task.draws = task.draws, ()
            give_back(draws, self.now)

    def count(self, task: Task) -> None:
        """A task that runs already takes its part of the limits, and nothing of what is taken once."""
        task.draws = self.draws(task.options)
        for gate, units in task.draws:
            if isinstance(gate, RunningLimit):
                gate.take(units, self.now)

    def obey(self, rules: Rules) -> None:
        """Go by these rules from now on. A pause that is over is none."""
        self.rules = rules = replace(
            rules, pauses=tuple(pause for pause in rules.pauses if not 0 < pause.until <= self.now)
        )
        self.bounded = bounded(rules)
        self.gates = Gates(rules, self.gates.buckets, self.now)
        self._unknown.clear()
        self.paused = any(pause.scope == "all" for pause in rules.pauses)
        self._pauses_end = min((pause.until for pause in rules.pauses if pause.until), default=None)
        for task in self.tasks.values():
            if task.state is State.RUNNING:
                self.count(task)
        for stream in self._streams.values():
            stream.obey(rules.queue(stream.queue))
            stream.paused = self._is_paused(stream.queue)
            self._move(stream)
            for lane in stream.lanes.values():
                if lane.shut is not None:
                    lane.unpark()
                lane.obey(self._gates_of(stream.queue, *lane.key))
            # Also where nothing is left of it: its fairness keys may believe that it was woken already.
            stream.lineup.wake(stream)

    def _move(self, stream: Stream) -> None:
        """To the pool that the rules give it; what runs ends where it is."""
        pool = self.pool_of(stream.queue, stream.shape)
        if stream.lineup is pool.lineup:
            return
        before = next(other for other in self.pools.values() if other.lineup is stream.lineup)
        before.lineup.remove(stream)
        waiting = [*before.suspects, *before.loners]
        suspects = [task for _, _, task in waiting if (task.queue, task.shape) == (stream.queue, stream.shape)]
        before.clear({task.id for task in suspects})
        for task in suspects:
            pool.suspect(task)
        stream.lineup = pool.lineup
        pool.lineup.add(stream)
        self.release(before)

    def draws(self, options: Options) -> tuple[Draw, ...]:
        """The gates that a task like this must pass."""
        return self._gates_of(options.queue, *lane_key(options))

    def knows(self, worker: Worker, types: frozenset[str] | None) -> None:
        """What the code of a worker knows; None where it does not say, or is to be given nothing more."""
        known = self._known.get(worker.pool)
        if known is None:
            if types is None:
                return
            known = self._known[worker.pool] = KnownTypes()
        if known.say(worker.name, types):
            self.obey(self.rules)

    def unknown_types(self) -> list[str]:
        """Those of which tasks wait for a worker that knows them."""
        return sorted({name for (_, name), gate in self._unknown.items() if gate.first_parked()})

    def _gates_of(self, queue: str, type_name: str, _: str, concurrency_key: str, shape: str) -> tuple[Draw, ...]:
        draws = self.gates.of(queue, type_name, concurrency_key)
        if not self._known:
            return draws
        pool = self._pool_name(queue, shape)
        known = self._known.get(pool)
        if known is None or known.all is None or type_name in known.all:
            return draws
        gate = self._unknown.setdefault((pool, type_name), Gate("unknown", type_name))
        return ((gate, 1.0), *draws)

    def _is_paused(self, queue: str) -> bool:
        return any(pause.scope == "queue" and pause.name == queue for pause in self.rules.pauses)
