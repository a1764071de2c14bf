"""A queue's ready tasks: by rank within a fairness key, by weight between the keys."""

from typing import Final

from asyncproc.core.decision import Key
from asyncproc.core.lanes import Lane, Share
from asyncproc.core.shape import pool_name
from asyncproc.core.steering import QueueRules
from asyncproc.core.task import LaneKey, Task
from asyncproc.core.turns import Turns

_IDLE_SHARES: Final = 64
"""Fairness keys of which nothing waits and that are still remembered: so that they pay for what they just got."""


class Stream:
    """One queue, or of one the tasks that ask for the same resources; `passed` is its virtual time among the queues of
    its pool."""

    __slots__ = (
        "_sole", "active", "ahead_rank", "coming", "held", "lanes", "lineup", "name", "paid", "parked", "passed",
        "paused", "queue", "rules", "shape", "shares", "starved", "touched", "waiting", "weight",
    )  # fmt: skip

    def __init__(
        self, queue: str, rules: QueueRules, lineup: "Turns[Stream]", touched: dict[Lane, None], shape: str = ""
    ) -> None:
        """Lanes that change are entered in `touched`."""
        self.queue = queue
        self.shape = shape
        self.name = pool_name(queue, shape)
        self.obey(rules)
        self.lineup = lineup
        self.touched = touched
        self.lanes: dict[LaneKey, Lane] = {}
        self.shares: Turns[Share] = Turns()
        self._sole: Share | None = None
        """While there is one fairness key, nothing is counted between them."""
        self.held = 0
        """Ready tasks in memory."""
        self.coming = 0
        """The most that pages which were asked for bring."""
        self.parked = 0
        """Of those, the ones before a shut gate."""
        self.waiting = 0
        """Fairness keys that wait for a page."""
        self.paused = False
        self.passed = 0.0
        self.active = False
        self.starved = False
        self.paid = 0
        """Tasks that came back unstarted: their queue has paid for them already."""
        self.ahead_rank = float("-inf")
        """No lease that a worker was given ahead has a worse rank than this."""

    def obey(self, rules: QueueRules) -> None:
        """Go by these rules from now on."""
        self.rules = rules
        self.weight: float = rules.weight

    @property
    def startable(self) -> int:
        return 0 if self.paused else self.held - self.parked

    def lane(self, key: LaneKey, end: Key | None = None) -> Lane:
        """The lane, made at first sight; `end` says where its part in memory ends then."""
        lane = self.lanes.get(key)
        if lane is None:
            share = self._share(key[1])
            lane = self.lanes[key] = Lane(self, share, key, end)
            share.lanes += 1
        return lane

    def wake(self, share: Share) -> None:
        """The share may have something ready again."""
        if share.waits:
            share.waits = False
            self.waiting -= 1
        if self._sole is None:
            self.shares.wake(share)
        else:
            share.active = True
        self.lineup.wake(self)

    def head(self, now: float) -> Lane | None:
        if self.paused:
            return None
        sole = self._sole
        if sole is None:
            return self.shares.head(now)
        lane = sole.head(now)
        if lane is None:
            sole.active = False
        return lane

    def serve(self, lane: Lane, now: float, task: Task | None = None) -> Task:
        """Take what `head` showed, or another one of its lane, and let the queue and the fairness key pay for it."""
        if self.paid:
            self.paid -= 1
            self.lineup.pay(self, free=True)
        else:
            self.lineup.pay(self)
        if self._sole is None:
            self.shares.pay(lane.share)
        return lane.pop(now) if task is None else lane.take(task, now)

    def is_starved(self) -> bool:
        return self.waiting > 0

    def drop(self, lane: Lane) -> None:
        """Forget a lane of which nothing waits, here or on disk."""
        del self.lanes[lane.key]
        lane.share.lanes -= 1
        if len(self.shares) > 2 * len(self.lanes) + _IDLE_SHARES:
            for share in [share for share in self.shares if not share.lanes]:
                self.shares.remove(share)
            self._recount()

    def _share(self, name: str) -> Share:
        share = self.shares.get(name)
        if share is None:
            share = Share(self, name)
            self.shares.add(share)
            self._recount()
        return share

    def _recount(self) -> None:
        if len(self.shares) == 1:
            (self._sole,) = self.shares
        elif self._sole is not None:
            sole, self._sole = self._sole, None
            if sole.active:
                sole.active = False
                self.shares.wake(sole)
