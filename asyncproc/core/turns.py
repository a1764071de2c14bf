"""Who is next among those that share: stride scheduling (Waldspurger and Weihl, 1995)."""

from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from asyncproc.core.lanes import Lane


class Member(Protocol):
    """`passed` is its virtual time: what it was served, by its weight."""

    name: str
    passed: float
    active: bool
    starved: bool
    """It ran dry only because a page was under way: it keeps its claim, as if it had never been empty."""

    @property
    def weight(self) -> float: ...

    def head(self, now: float) -> "Lane | None":
        """The lane that would be served next, None where nothing may start."""

    def is_starved(self) -> bool: ...


M = TypeVar("M", bound=Member)


class Turns(Generic[M]):
    """Members with ready tasks, the one least served for its weight in front.

    One that was idle starts at the virtual time of the others: it neither owns the past nor lags behind.
    """

    __slots__ = ("_heap", "_members", "now")

    def __init__(self) -> None:
        self._members: dict[str, M] = {}
        self._heap: list[tuple[float, str]] = []
        self.now = 0.0

    def __iter__(self) -> Iterator[M]:
        return iter(self._members.values())

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: M) -> None:
        self._members[member.name] = member

    def get(self, name: str) -> M | None:
        return self._members.get(name)

    def remove(self, member: M) -> None:
        del self._members[member.name]
        member.active = False

    def wake(self, member: M) -> None:
        """The member may have something ready again."""
        if member.active:
            return
        if not member.starved:
            member.passed = max(member.passed, self.now)
        member.active, member.starved = True, False
        heappush(self._heap, (member.passed, member.name))

    def head(self, now: float) -> "Lane | None":
        """The lane that would be served next; it stays where it is."""
        while self._heap:
            passed, name = self._heap[0]
            member = self._members.get(name)
            if member is not None and member.active and member.passed == passed:
                lane = member.head(now)
                if lane is not None:
                    return lane
                member.active = False
                member.starved = member.is_starved()
            # To look at a lane may have let others on, which are in front now.
            if self._heap[0] == (passed, name):
                heappop(self._heap)
        return None

    def pay(self, member: M, *, free: bool = False) -> None:
        """The member that `head` showed is served; `free` where it has paid for that before."""
        # One that was starved serves out what it was owed: the time of the others does not go back with it.
        passed, name, heap = member.passed, member.name, self._heap
        if passed > self.now:
            self.now = passed
        if not free:
            member.passed += 1.0 / member.weight
        if heap and heap[0] == (passed, name):
            heapreplace(heap, (member.passed, name))
        else:
            heappush(heap, (member.passed, name))
