"""The ready tasks of a queue that meet the same gates, and the share of a fairness key among them."""

from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from asyncproc.core.decision import Key
from asyncproc.core.gates import Draw, Gate, TokenBucket, shut, take
from asyncproc.core.task import LaneKey, Task
from asyncproc.core.window import Window

if TYPE_CHECKING:
    from asyncproc.core.streams import Stream
    from asyncproc.core.turns import Turns


class Lane:
    """Tasks of one queue, type, fairness key and concurrency key, in rank order; the rest of them is on disk."""

    __slots__ = ("_coming", "_window", "behind", "draws", "is_metered", "key", "peek", "share", "shut", "stream")

    def __init__(self, stream: "Stream", share: "Share", key: LaneKey, end: Key | None) -> None:
        self.stream = stream
        self.share = share
        self.key = key
        self._window = Window(end)
        self.peek: Callable[[], tuple[float, bytes, Task] | None] = self._window.peek
        """The best of it, which each grant looks at several times: without a call in between."""
        self._coming = 0
        self.behind = 0
        """Ready tasks that are on disk alone, as far as is known."""
        self.shut: Gate | None = None
        """The gate before which it is parked."""
        self.draws: tuple[Draw, ...] = ()
        self.is_metered = False

    def __len__(self) -> int:
        return len(self._window)

    @property
    def end(self) -> Key | None:
        return self._window.end

    def obey(self, draws: tuple[Draw, ...]) -> None:
        """Meet these gates from now on."""
        self.draws = draws
        self.is_metered = any(isinstance(gate, TokenBucket) for gate, _ in draws)

    def units(self, gate: Gate) -> float:
        return next((units for draw, units in self.draws if draw is gate), 1.0)

    # ---- tasks come and go

    def push(self, task: Task) -> bool:
        """Take a ready task in; False where it belongs behind the end and stays on disk."""
        if not self._window.push(task.rank, task):
            self.behind += 1
            return False
        self._count(1)
        head = self.peek()
        if head is not None and head[2] is task:
            if self.shut is None:
                self.share.offer(self)
            elif len(self) == 1:
                # It was empty, and stood for what is on disk: such a lane is not called when its gate opens.
                self.unpark()
            else:
                self.shut.park(self)
        return True

    @property
    def best(self) -> Task:
        """Of a lane that is not empty."""
        head = self.peek()
        if head is None:
            raise AssertionError(f"{self.key} was offered with nothing in it")
        return head[2]

    def first(self, number: int) -> list[Task]:
        """The best ones, in their order."""
        return list(self._window.first(number))

    def take(self, task: Task, now: float) -> Task:
        """Start a task that need not be the one in front."""
        head = self.peek()
        if head is not None and head[2] is task:
            return self.pop(now)
        self._window.discard(task.rank, task)
        self._count(-1)
        if self.draws:
            task.draws = self.draws
            take(self.draws, now)
        return task

    def next_rider(self, lineup: "Turns[Stream]", now: float) -> Task | None:
        """The best task that may start without its turn: where that takes nothing from others. What limits its type
        alone does not."""
        stream = self.stream
        if (
            stream.lineup is not lineup
            or stream.paused
            or self.shut is not None
            or stream.lanes.get(self.key) is not self
        ):
            return None
        if any(gate.kind != "type" for gate, _ in self.draws) or self.closed(now) is not None:
            return None
        head = self.peek()
        return None if head is None else head[2]

    def pop(self, now: float) -> Task:
        """Start the task that `peek` showed."""
        task = self._window.pop()
        self._count(-1)
        self.share.go_on(self)
        if self.draws:
            task.draws = self.draws
            take(self.draws, now)
        return task

    def discard(self, task: Task) -> None:
        """Take a waiting task out."""
        head = self.peek()
        self._window.discard(task.rank, task)
        self._count(-1)
        if head is not None and head[2] is task and self.shut is None:
            self.share.offer(self)

    def shed(self, limit: int, limit_bytes: int) -> list[Task]:
        """Leave to the disk what is over these bounds."""
        gone = self._window.shed(limit, limit_bytes)
        self.behind += len(gone)
        self._count(-len(gone))
        return gone

    def rewind(self, end: Key) -> list[Task]:
        """Leave all from this key on to the disk."""
        gone = self._window.rewind(end)
        self.behind += len(gone)
        self._count(-len(gone))
        if self.shut is None:
            self.share.offer(self)
        return gone

    def page_arrived(self, last: Key | None, complete: bool, rows: int) -> None:
        """Call it before the tasks of the page are pushed."""
        self._window.page_arrived(last, complete)
        self.behind = 0 if complete else max(0, self.behind - rows)
        self._expect(0)
        if complete and last is None and not len(self):
            # There was nothing left on disk: it was idle and not starved, and keeps no claim on the past.
            self.share.starved = False
            self.stream.starved = self.stream.starved and self.stream.held > 0
        if self.shut is None:
            self.share.look_again(self)

    def wanted(self, limit: int, limit_bytes: int) -> int:
        return self._window.wanted(limit, limit_bytes)

    def count_before(self, place: Key) -> int:
        """Tasks in memory before this place."""
        return self._window.count_before(place)

    def begin_page(self, limit: int) -> None:
        self._window.paging = True
        self._expect(limit)

    def _expect(self, rows: int) -> None:
        self.stream.coming += rows - self._coming
        self._coming = rows

    def _count(self, number: int) -> None:
        stream = self.stream
        stream.held += number
        stream.touched[self] = None
        if self.shut is not None:
            stream.parked += number

    # ---- gates

    def closed(self, now: float) -> Gate | None:
        return shut(self.draws, now) if self.draws else None

    def park(self, gate: Gate, now: float) -> None:
        """Wait before this gate. What it was let on for at others goes to the next there."""
        self.shut = gate
        self.stream.parked += len(self)
        gate.park(self)
        self.pass_on(now, but=gate)

    def unpark(self) -> None:
        self.shut = None
        self.stream.parked -= len(self)
        self.share.offer(self)

    def pass_on(self, now: float, but: Gate | None = None) -> None:
        for gate, _ in self.draws:
            if gate is not but:
                gate.let_on(now)


class Share:
    """What one fairness key of a queue gets: its lanes, the one with the best task in front."""

    __slots__ = ("_entries", "_heap", "active", "lanes", "name", "passed", "starved", "stream", "waits")

    def __init__(self, stream: "Stream", name: str) -> None:
        self.stream = stream
        self.name = name
        self.passed = 0.0
        self.active = False
        self.starved = False
        self.lanes = 0
        self.waits = False
        """For a page."""
        self._heap: list[tuple[float, bytes, int, Lane]] = []
        self._entries = 0

    @property
    def weight(self) -> float:
        return self.stream.rules.weight_of(self.name)

    def offer(self, lane: Lane) -> None:
        """The lane has a new head; or none in memory, and then stands for what is next on disk."""
        head = lane.peek() or lane.end
        if head is not None:
            self._entries += 1  # no two entries are equal: lanes have no order
            heappush(self._heap, (head[0], head[1], self._entries, lane))
            if not self.active:
                self.stream.wake(self)

    def go_on(self, lane: Lane) -> None:
        """The lane that was in front was served: its next head takes the place of the last."""
        head = lane.peek() or lane.end
        if head is not None and self._heap and self._heap[0][3] is lane:
            self._entries += 1
            heapreplace(self._heap, (head[0], head[1], self._entries, lane))
        else:
            self.offer(lane)

    def look_again(self, lane: Lane) -> None:
        """A page of the lane arrived: others that had to wait for what is in it may go on."""
        self.offer(lane)
        if self._heap and not self.active:
            self.stream.wake(self)

    def head(self, now: float) -> Lane | None:
        heap = self._heap
        while heap:
            rank, task_id, _, lane = heap[0]
            best = lane.peek()
            head = best or lane.end
            if head is None:
                heappop(heap)
                lane.pass_on(now)
            elif lane.shut is not None or head[1] != task_id or head[0] != rank:
                heappop(heap)
            elif lane.draws and (gate := lane.closed(now)) is not None:
                heappop(heap)
                lane.park(gate, now)
            elif best is None:
                # What the page brings may be better than all others.
                if not self.waits:
                    self.waits = True
                    self.stream.waiting += 1
                return None
            else:
                return lane
        return None

    def is_starved(self) -> bool:
        return self.waits
