"""What table, QueueActor and worker may do wrong around a core that is right."""

from collections.abc import Collection, Container, Mapping, Sequence
from typing import Final

from asyncproc.core.decision import Decision, PollReply, Reply
from asyncproc.core.events import Event, Outcome, Page
from asyncproc.core.task import NewTask, Task, TaskId
from asyncproc.core.unique import Wish
from simulation.family import Edges
from simulation.queue_actor import Answered, Make, QueueActor, Read
from simulation.requests import Requests
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


class KeepsRequests(Table):
    """A request stays though its task is made."""

    def take(self, task_id: TaskId) -> None:
        pass


class TakesRequestsAtOnce(Requests):
    """A request is gone as soon as it is read."""

    def read(self) -> list[NewTask]:
        tasks = super().read()
        for task in tasks:
            del self._scene.table.requests[task[0]]
        return tasks


class ForgetsRequestsInACrash(QueueActor):
    """A request is gone as soon as it is read, whether or not its task is ever committed."""

    def make_requests(self) -> Requests:
        return TakesRequestsAtOnce(self.scene, self.ask, lambda: self.over)


class TakesOvertakenNotes(Table):
    """A note counts though a later one came first."""

    def is_newer(self, task_id: TaskId, noted: tuple[int, int]) -> bool:
        return True


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


class LeavesCheckpointsOut(QueueActor):
    """A checkpoint does not reach the next lease."""

    def add_checkpoints(self, reply: PollReply, checkpoints: Mapping[TaskId, bytes]) -> None:
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


class ReadsWhileUnknown(QueueActor):
    """Who has a key is read while the commit before may still come."""

    def blind(self) -> bool:
        return False


class LooksBesideOthers(QueueActor):
    """Who has a key is read while another may be about to take it."""

    def exchange(self, read: Read, make: Make, answered: Answered) -> None:
        self.scene.agenda.after(self.scene.chance.latency() / 2, self._exchange_anyway, make, read(), answered)

    def _exchange_anyway(self, make: Make, rows: list[Task], answered: Answered) -> None:
        if not self.over:
            self.ask(lambda ticket: make(ticket, rows), answered)


class ForgetsWhatItBrought(QueueActor):
    """A repeated call for the only task with a key is not compared with what is there."""

    def enqueue_unique(self, tasks: list[NewTask], wish: Wish, again: bool, answered: Answered) -> None:
        super().enqueue_unique(tasks, wish, False, answered)


class _FirstParent(Edges):
    def cuts(self, parent: TaskId, child: TaskId, over: Container[TaskId]) -> bool:
        return any(other in over for other in self.open[child])


class ReleasesWithTheFirstParent(Table):
    """A task waits for one of its parents alone."""

    def __init__(self, page_bytes: int, large_bytes: int) -> None:
        super().__init__(page_bytes, large_bytes)
        self.edges = _FirstParent()


TABLES: Final = (SkipsTheFence, ForgetsKeys, KeepsRequests, TakesOvertakenNotes, ReleasesWithTheFirstParent)
ACTORS: Final = (
    AcknowledgesBeforeCommit, GrantsWhatWasRefused, LosesAPage, ReadsPagesShort, LeavesPayloadsOut,
    LeavesCheckpointsOut, KeepsRefusalsToItself, GoesOnWithoutCommit, RepeatsWithoutLooking, LooksUpNoKey,
    LosesSightOfKeys, ForgetsRequestsInACrash, ReadsWhileUnknown, LooksBesideOthers, ForgetsWhatItBrought,
)  # fmt: skip
WORKERS: Final = (TrustsAnyEpoch, ForgetsBeforeRecorded, ReturnsWhatItRuns, RunsWhatWasDropped)
