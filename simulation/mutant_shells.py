"""What table, QueueActor and worker may do wrong around a core that is right."""

from collections.abc import Collection, Container, Mapping, Sequence
from typing import Final

from asyncproc.core.decision import Decision, PollReply, Reply
from asyncproc.core.events import Event, Outcome, Page
from asyncproc.core.task import NewTask, TaskId
from simulation.family import Edges
from simulation.queue_actor import Answered, QueueActor
from simulation.table import Committed, Table
from simulation.workers import Worker


class SkipsTheFence(Table):
    """Whoever commits is believed to reign."""

    def prove(self, epoch: int) -> None:
        pass


class ForgetsKeys(Table):
    """Keys are not written with their tasks."""

    def use(self, key: str, ids: list[TaskId]) -> None:
        pass


class AcknowledgesBeforeCommit(QueueActor):
    """Answers go out before the commit."""

    def decided(self, decision: Decision) -> None:
        if self.answer_all(decision, Committed([], [])):
            super().decided(decision)


class GrantsWhatWasRefused(QueueActor):
    """A poll is answered with leases that the table refused."""

    def correct(self, reply: Reply, unwritten: Collection[TaskId]) -> None:
        pass


class LosesAPage(QueueActor):
    """A page that was read does not reach the core."""

    def follow_up(self, unwritten: list[TaskId], pages: Sequence[Event]) -> list[Event]:
        return super().follow_up(unwritten, pages[:-1])


class ReadsPagesShort(QueueActor):
    """The last row of a page is left out."""

    def follow_up(self, unwritten: list[TaskId], pages: Sequence[Event]) -> list[Event]:
        for page in pages:
            if isinstance(page, Page) and len(page.tasks) > 1:
                page.tasks.pop()
        return super().follow_up(unwritten, pages)


class LeavesPayloadsOut(QueueActor):
    """A large payload does not reach its lease."""

    def complete(self, reply: PollReply, payloads: Mapping[TaskId, bytes]) -> None:
        pass


class KeepsRefusalsToItself(QueueActor):
    """The core is not told what the table refused."""

    def follow_up(self, unwritten: list[TaskId], pages: Sequence[Event]) -> list[Event]:
        return [*pages]


class GoesOnWithoutCommit(QueueActor):
    """A commit that fails, or whose fate is unknown, is not repeated."""

    def again(self, decision: Decision, since: float, wait_s: float) -> None:
        self.went_through(decision, Committed([], []))


class RepeatsWithoutLooking(QueueActor):
    """A repeated enqueue is not compared with what is there."""

    def enqueue(self, tasks: list[NewTask], again: bool, answered: Answered) -> None:
        super().enqueue(tasks, False, answered)


class TrustsAnyEpoch(Worker):
    """A worker listens to a QueueActor whose reign is over."""

    def trusts(self, epoch: int) -> bool:
        return True


class ForgetsBeforeRecorded(Worker):
    """A worker forgets an outcome as it sends it."""

    def poll(self, outcomes: list[Outcome], back: list[tuple[TaskId, int]]) -> None:
        super().poll(outcomes, back)
        self.forget([outcome[0] for outcome in outcomes])


class ReturnsWhatItRuns(Worker):
    """A worker returns what it has begun too."""

    def may_return(self, task_id: TaskId, lease: int) -> bool:
        return self.holds(task_id, lease)


class RunsWhatWasDropped(Worker):
    """What a worker is told to drop it begins all the same."""

    def begins(self, task_id: TaskId, lease: int) -> bool:
        return True


class LooksUpNoKey(QueueActor):
    """A key is only known while its request is under way."""

    def known(self, key: str) -> tuple[TaskId, ...] | None:
        return None


class LosesSightOfKeys(QueueActor):
    """A request that is under way is not seen by the next one with its key."""

    def enqueue_once(self, key: str, tasks: list[NewTask], answered: Answered) -> None:
        others = self._flights.pop(key, [])
        super().enqueue_once(key, tasks, answered)
        self._flights.setdefault(key, []).extend(others)


class _FirstParent(Edges):
    def cuts(self, parent: TaskId, child: TaskId, over: Container[TaskId]) -> bool:
        return any(other in over for other in self.open[child])


class ReleasesWithTheFirstParent(Table):
    """A task waits for one of its parents alone."""

    def __init__(self, page_bytes: int, large_bytes: int) -> None:
        super().__init__(page_bytes, large_bytes)
        self.edges = _FirstParent()


TABLES: Final = (SkipsTheFence, ForgetsKeys, ReleasesWithTheFirstParent)
ACTORS: Final = (
    AcknowledgesBeforeCommit, GrantsWhatWasRefused, LosesAPage, ReadsPagesShort, LeavesPayloadsOut,
    KeepsRefusalsToItself, GoesOnWithoutCommit, RepeatsWithoutLooking, LooksUpNoKey, LosesSightOfKeys,
)  # fmt: skip
WORKERS: Final = (TrustsAnyEpoch, ForgetsBeforeRecorded, ReturnsWhatItRuns, RunsWhatWasDropped)
