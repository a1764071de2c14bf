"""Every task in memory in its place: running, ready in the window of its queue, due later, or a suspect."""

from collections.abc import Iterable, Iterator

from asyncproc.core.decision import Key, PageWanted
from asyncproc.core.events import Page
from asyncproc.core.pool import Pool
from asyncproc.core.rank import rank
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import DUE_LATER, State, Trigger, after
from asyncproc.core.streams import Stream
from asyncproc.core.task import Task, TaskId
from asyncproc.core.window import START, Window


class Backlog:
    """What is ready goes to the pools in rank order, what is due later waits for its instant; the rest is on disk."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self.tasks: dict[TaskId, Task] = {}
        """All tasks in memory, the running ones included."""
        self.pools: dict[str, Pool] = {}
        self._due = Window(settings.window, settings.window_bytes, START)

    def pool(self, name: str) -> Pool:
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Pool(name, self._settings.prefetch_s, self._settings.max_held)
        return pool

    def stream(self, queue: str, end: Key | None = None) -> Stream:
        """The queue, made at first sight; `end` says where its part in memory ends then."""
        settings = self._settings
        lineup = self.pool(settings.pool(queue)).lineup
        stream = lineup.get(queue)
        if stream is None:
            stream = Stream(queue, settings.rules(queue), Window(settings.window, settings.window_bytes, end))
            lineup.add(stream)
        return stream

    def make_ready(self, task: Task) -> None:
        """Give the task its rank, which it keeps until an attempt ends, and its place."""
        aging_s = self.stream(task.queue).rules.aging_s
        task.rank = rank(task.ready_at, task.options.priority, aging_s)
        self.admit(task)

    def admit(self, task: Task) -> None:
        """Take a ranked task into memory if it is in reach of its window; suspects always are."""
        stream = self.stream(task.queue)
        pool = self.pool(self._settings.pool(task.queue))
        if task.losses:
            pool.suspect(task)
            self.tasks[task.id] = task
        elif stream.ready.push(task.rank, task):
            self.tasks[task.id] = task
            pool.lineup.wake(stream)
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
            self.pool(self._settings.pool(task.queue)).clear({task.id})
        else:
            self.stream(task.queue).ready.discard(task.rank, task)

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

    def take_page(self, page: Page) -> None:
        """Rows from disk take their place; those that are in memory already are left alone."""
        stream = None if page.queue is None else self.stream(page.queue)
        window = self._due if stream is None else stream.ready
        window.page_arrived(page.last, page.complete)
        for task in page.tasks:
            if task.id in self.tasks:
                continue
            if task.state is State.QUEUED:
                self.admit(task)
            else:
                self.defer(task)
        if stream is not None and stream.ready.end is None and not len(stream.ready):
            # There was nothing left on disk: the queue was idle and not starved, and keeps no claim on the past.
            stream.starved = False

    def shed(self) -> Iterator[PageWanted]:
        """Hold the bounds of the windows; yields the pages that are wanted where one runs low."""
        for pool in self.pools.values():
            for stream in pool.lineup:
                yield from self._trim(stream.name, stream.ready)
        yield from self._trim(None, self._due)

    def _trim(self, queue: str | None, window: Window) -> Iterator[PageWanted]:
        self._leave(window.shed())
        limit = window.wanted()
        if limit and window.end is not None:
            window.paging = True
            yield PageWanted(queue, window.end, limit)

    def forget(self, ids: Iterable[TaskId]) -> list[Task]:
        """Drop these wherever they are, and read their part of the table again: what is there is not in memory now."""
        tasks = [self.tasks[task_id] for task_id in dict.fromkeys(ids) if task_id in self.tasks]
        for pool in self.pools.values():
            pool.clear({task.id for task in tasks})
        for task in tasks:
            self._leave(self._due.rewind((task.ready_at, b"")))
            if task.state not in DUE_LATER:
                self._leave(self.stream(task.queue).ready.rewind((task.rank, b"")))
            self.tasks.pop(task.id, None)
        return tasks

    def _leave(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            del self.tasks[task.id]
