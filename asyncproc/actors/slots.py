"""The threads of a worker that run tasks, apart from the loop that talks to the QueueActor.

User code may block for as long as it likes: the worker goes on reporting and asking for more.
"""

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread

from asyncproc.core.events import Lease, Outcome
from asyncproc.executor import Executor


class Slots:
    """As many threads as tasks may run at once. A lease goes to the first free one, in the order they came.

    `async def` tasks of all slots share one loop on a thread of its own; their slot waits for them.
    """

    def __init__(self, executor: Executor, concurrency: int, ended: Callable[[Outcome], None]) -> None:
        self._executor = executor
        self._ended = ended
        self._waiting: SimpleQueue[Lease] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        # Daemons: a task that never returns must not keep the process alive after its worker was told to end.
        Thread(target=self._loop.run_forever, name="async-tasks", daemon=True).start()
        for number in range(concurrency):
            Thread(target=self._work, name=f"slot-{number + 1}", daemon=True).start()

    def put(self, lease: Lease) -> None:
        self._waiting.put(lease)

    def take_back(self) -> list[Lease]:
        """The leases that no slot has begun; none of them will be."""
        unstarted: list[Lease] = []
        while True:
            try:
                unstarted.append(self._waiting.get_nowait())
            except Empty:
                return unstarted

    def is_idle(self) -> bool:
        """Nothing waits here for a slot; what runs may be about to end."""
        return self._waiting.empty()

    def _work(self) -> None:
        while True:
            lease = self._waiting.get()
            if self._executor.is_async(lease[3]):
                outcome = asyncio.run_coroutine_threadsafe(self._executor.run_async(lease), self._loop).result()
            else:
                outcome = self._executor.run(lease)
            self._ended(outcome)
