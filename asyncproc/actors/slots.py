"""Where a worker runs tasks, apart from the loop that talks to the QueueActor.

User code may block for as long as it likes: the worker goes on reporting and asking for more.
"""

import asyncio
from collections.abc import Callable, Container, Iterable
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread

from asyncproc.core.events import Lease, Outcome
from asyncproc.core.line import Line
from asyncproc.core.task import TaskId
from asyncproc.executor import Executor


class Slots:
    """Runs at most `concurrency` tasks at once, in the order of the line.

    A slot goes from task to task without changing hands: a thread of its own takes plain tasks one after the other,
    `async def` tasks of all slots share one loop. `ended` is called where the task ran.
    """

    def __init__(self, executor: Executor, concurrency: int, ended: Callable[[Outcome], None]) -> None:
        self._executor = executor
        self._ended = ended
        self._lock = Lock()
        self._waiting = Line()
        self._free = concurrency
        self._for_threads: SimpleQueue[Lease] = SimpleQueue()
        self._idle_threads = Semaphore(0)
        self._loop = asyncio.new_event_loop()
        # Daemons: a task that never returns must not keep the process alive after its worker was told to end.
        Thread(target=self._loop.run_forever, name="async-tasks", daemon=True).start()

    def put(self, leases: Iterable[Lease]) -> None:
        with self._lock:
            self._waiting.put(leases)
            starting = [self._waiting.pop() for _ in range(min(self._free, len(self._waiting)))]
            self._free -= len(starting)
        for lease in starting:
            self._start(lease)

    def take_back(self, ids: Container[TaskId] | None = None) -> list[Lease]:
        """The leases that no slot has begun, of these tasks or of all; none of them will be."""
        with self._lock:
            return self._waiting.take(ids)

    def is_idle(self) -> bool:
        """Nothing waits here for a slot; what runs may be about to end."""
        return not self._waiting

    def _start(self, lease: Lease) -> None:
        if self._executor.is_async(lease[3]):
            asyncio.run_coroutine_threadsafe(self._run_async(lease), self._loop)
            return
        self._for_threads.put(lease)
        if not self._idle_threads.acquire(blocking=False):
            Thread(target=self._serve, name="slot", daemon=True).start()

    def _serve(self) -> None:
        while True:
            lease: Lease | None = self._for_threads.get()
            while lease is not None:
                self._ended(self._executor.run(lease))
                lease = self._next(is_async=False)
            self._idle_threads.release()

    async def _run_async(self, lease: Lease | None) -> None:
        while lease is not None:
            self._ended(await self._executor.run_async(lease))
            lease = self._next(is_async=True)
            # A task that awaits nothing must not keep the others of the loop waiting.
            await asyncio.sleep(0)

    def _next(self, *, is_async: bool) -> Lease | None:
        """What the slot goes on with; None where nothing waits, or where the other kind of task has the slot now."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return None
            lease = self._waiting.pop()
        if self._executor.is_async(lease[3]) is is_async:
            return lease
        self._start(lease)
        return None
