"""Where a worker runs tasks, apart from the loop that talks to the QueueActor.

User code may block for as long as it likes: the worker goes on reporting and asking for more.
"""

import asyncio
import sys
import traceback
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread, Timer, get_ident
from typing import Protocol, TypeAlias

from asyncproc.actors.batches import Batch, Batcher
from asyncproc.actors.watchdog import Attempt, Watchdog, forget_interrupt, interrupt_thread
from asyncproc.clock import id_text, monotonic
from asyncproc.core.events import SUCCEEDED, Lease, Outcome
from asyncproc.core.line import Line
from asyncproc.core.task import NO_LIMITS, TaskId, TimeLimits
from asyncproc.errors import ExtensionRefused, SetupFailed, SetupTooLong, SoftTimeLimitExceeded, TaskCancelled
from asyncproc.executor import Executor, Extend, as_killed, fail_all, failed

Work: TypeAlias = Lease | Batch
"""What one slot takes at a time."""


class Confinement(Protocol):
    """Runs tasks in processes of their own."""

    def run(self, lease: Lease) -> Outcome | None:
        """None where there is no process to be had: the task has not begun."""

    def stop(self, task_id: TaskId) -> None:
        """Tell a task to end."""

    def kill(self, task_id: TaskId) -> None:
        """End its process; `run` tells the outcome."""


class Slots:
    """Runs at most `concurrency` tasks at once, in the order of the line.

    A slot goes from task to task without changing hands: a thread of its own takes plain tasks one after the other,
    `async def` tasks of all slots share one loop. `ended` is called where the task ran.
    """

    def __init__(
        self,
        executor: Executor,
        concurrency: int,
        ended: Callable[[Outcome], None],
        overdue: Callable[[Outcome], None],
        cells: Confinement | None = None,
        max_extended_s: float = 0.0,
        extended: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`overdue` is called instead of `ended` for an attempt whose hard time limit is over: it still has its slot,
        and nothing but the end of the process takes it away. Without `cells` this process is itself one of a task's
        own. `extended` is told by how much the limits of a task were put off, of which an attempt may have
        `max_extended_s` in all."""
        self._cells = cells
        self._max_extended_s = max_extended_s
        self._extended = extended
        self._running: dict[TaskId, Callable[[], object] | None] = {}
        """What runs, with what tells it to end where there is such a thing."""
        self._confined: set[TaskId] = set()
        self._ended_for: set[tuple[TaskId, int]] = set()
        """Attempts whose end was told although they go on."""
        self._executor = executor
        self._ended = ended
        self._overdue = overdue
        self._watchdog = Watchdog(self._give_up)
        self._lock = Lock()
        self._waiting = Line()
        self._free = concurrency
        self._batcher = Batcher(executor.batching, cells is not None) if executor.batching else None
        self._batches: dict[TaskId, Batch] = {}
        """Of the tasks that run, those that share a call."""
        self._telling = 0
        self._for_threads: SimpleQueue[Work] = SimpleQueue()
        self._idle_threads = Semaphore(0)
        self._loop = asyncio.new_event_loop()
        # Daemons: a task that never returns must not keep the process alive after its worker was told to end.
        Thread(target=self._loop.run_forever, name="async-tasks", daemon=True).start()

    def put(self, leases: Iterable[Lease]) -> None:
        with self._lock:
            self._waiting.put(leases if self._batcher is None else self._batcher.join(leases))
            starting: list[Work] = []
            while self._free and self._waiting:
                self._free -= 1
                starting.append(self._pop())
        for work in starting:
            self._start(work)

    def _pop(self) -> Work:
        lease = self._waiting.pop()
        return self._batcher.begin(lease, self._waiting) if self._batcher and self._batcher.takes(lease) else lease

    def take_back(self, ids: Container[TaskId] | None = None, *, gathering: bool = True) -> list[Lease]:
        """The leases that no slot has begun, of these tasks or of all; none of them will be. Those that a slot has and
        that wait for others of their type are among them where they are `gathering`."""
        with self._lock:
            taken = self._waiting.take(ids)
            return taken + self._batcher.take(ids) if self._batcher is not None and gathering else taken

    def stop(self, attempt: tuple[TaskId, int], grace_s: float | None) -> None:
        """Tell a task that runs to end, and give it up if it still runs after the grace; nothing where it has ended.
        Without a grace somebody else sees to that."""
        task_id = attempt[0]
        if task_id not in self._running:
            return
        stops = self._executor.stops
        stops.add(id_text(task_id))
        attempts = [attempt]
        if (batch := self._batches.get(task_id)) is not None:
            # The others would go down with it; it ends with the call.
            if any(id_text(lease[0]) not in stops for lease in batch.leases):
                return
            attempts = [(lease[0], lease[1]) for lease in batch.leases]
        tell = self._running.get(task_id)
        if tell is not None:
            tell()
        if grace_s is None:
            return
        for each in attempts:
            timer = Timer(grace_s, self._give_up_stopped, (each, monotonic()))
            timer.daemon = True
            timer.start()

    def _give_up_stopped(self, attempt: tuple[TaskId, int], told_at: float) -> None:
        if attempt[0] not in self._running or attempt in self._ended_for:
            return
        if self._cells is not None and attempt[0] in self._confined:
            self._cells.kill(attempt[0])
            return
        self._ended_for.add(attempt)
        self._overdue(as_killed(failed(attempt, TaskCancelled(), monotonic() - told_at, "")))

    def _over(self, lease: Lease) -> bool:
        """The attempt does not run any more. False where its end was told before."""
        self._running.pop(lease[0], None)
        if self._batches:
            self._batches.pop(lease[0], None)
        if self._executor.stops:
            self._executor.stops.discard(id_text(lease[0]))
        return not self._ended_for or (lease[0], lease[1]) not in self._ended_for

    def is_idle(self) -> bool:
        """Nothing waits here for a slot; what runs may be about to end, and the rest of a batch is not just ending."""
        return not self._waiting and not self._telling

    def _start(self, work: Work) -> None:
        if self._on_loop(work):
            asyncio.run_coroutine_threadsafe(self._run_async(work), self._loop)
            return
        self._for_threads.put(work)
        if not self._idle_threads.acquire(blocking=False):
            Thread(target=self._serve, name="slot", daemon=True).start()

    def _serve(self) -> None:
        while True:
            work: Work | None = self._for_threads.get()
            while work is not None:
                if isinstance(work, Batch):
                    self._run_batch(work)
                else:
                    self._run(work)
                work = self._next(is_async=False)
            self._idle_threads.release()

    async def _run_async(self, work: Work | None) -> None:
        while work is not None:
            if isinstance(work, Batch):
                await self._run_batch_cancellable(work)
            else:
                await self._run_cancellable(work)
            work = self._next(is_async=True)
            # A task that awaits nothing must not keep the others of the loop waiting.
            await asyncio.sleep(0)

    def _on_loop(self, work: Work) -> bool:
        if isinstance(work, Batch):
            return self._executor.is_async(work.type)
        is_confined = work[8] and self._cells is not None
        return not is_confined and self._executor.is_async(work[3])

    def tear_down(self, limit_s: float) -> None:
        """Call it when nothing runs any more; it takes so long at most."""
        if not self._running:
            self._executor.preparation.tear_down(self._loop, limit_s)

    def _is_prepared(self, *leases: Lease) -> bool:
        """See to it that their type is set up here; where that fails, the attempts have ended with it. In its
        thread."""
        attempt = self._watch_setup(leases[0])
        error: BaseException | None = None
        try:
            self._executor.preparation.prepare(leases[0][3])
        except SetupFailed as failure:
            error = failure
        return self._go_on(leases, attempt, error)

    async def _is_prepared_async(self, *leases: Lease) -> bool:
        attempt = self._watch_setup(leases[0])
        error: BaseException | None = None
        try:
            await self._executor.preparation.prepare_async(leases[0][3])
        except (SetupFailed, asyncio.CancelledError) as failure:
            error = failure
        return self._go_on(leases, attempt, error)

    def _go_on(self, leases: Sequence[Lease], attempt: Attempt, error: BaseException | None) -> bool:
        if not self._watchdog.end(attempt):
            for lease in leases:
                self._over(lease)
            return False
        if error is not None:
            self._tell_all(leases, fail_all(leases, error, monotonic() - attempt.began))
        return error is None

    def _watch_setup(self, lease: Lease) -> Attempt:
        """It has a limit of its own: one that hangs would keep its slot for ever."""
        limits = TimeLimits(self._executor.preparation.limit_s)
        return self._watchdog.begin((*lease[:7], limits, *lease[8:]), get_ident(), lambda: None, SetupTooLong)

    def _run(self, lease: Lease) -> None:
        self._running[lease[0]] = None
        if lease[8] and self._cells is not None:
            self._running[lease[0]] = partial(self._cells.stop, lease[0])
            self._confined.add(lease[0])
            outcome = self._cells.run(lease)
            self._confined.discard(lease[0])
            if outcome is not None:
                self._tell(lease, outcome)
                return
            if lease[3] in self._executor.batching:
                self._run_batch(Batch(lease[3], [lease]))
                return
            if self._executor.is_async(lease[3]):
                asyncio.run_coroutine_threadsafe(self._run_cancellable(lease), self._loop).result()
                return
        if (missing := self._executor.preparation.missing) and lease[3] in missing and not self._is_prepared(lease):
            return
        if lease[7] == NO_LIMITS:
            self._tell(lease, self._executor.run(lease))
            return
        thread = get_ident()
        attempt = self._watchdog.begin(lease, thread, partial(interrupt_thread, thread))
        try:
            outcome = self._executor.run(lease, partial(self._extend, (attempt,)))
            ours = self._watchdog.end(attempt)
            if attempt.interrupted:
                forget_interrupt(thread)
        except SoftTimeLimitExceeded as error:
            # It came when the task's own code had ended already.
            outcome = failed(lease, error, monotonic() - attempt.began)
            ours = self._watchdog.end(attempt)
        if ours:
            self._tell(lease, outcome)
        else:
            self._over(lease)

    def _tell(self, lease: Lease, outcome: Outcome) -> None:
        if self._over(lease):
            self._ended(outcome)

    def _tell_all(self, leases: Sequence[Lease], outcomes: Sequence[Outcome]) -> None:
        """They travel together: the report waits for the last of them."""
        number = {lease[0]: lease for lease in leases}
        self._telling += 1
        for outcome in outcomes[:-1]:
            self._tell(number[outcome[0]], outcome)
        self._telling -= 1
        for outcome in outcomes[-1:]:
            self._tell(number[outcome[0]], outcome)

    # ---- several in one call

    def _run_batch(self, batch: Batch) -> None:
        if self._executor.is_async(batch.type):
            asyncio.run_coroutine_threadsafe(self._run_batch_cancellable(batch), self._loop).result()
            return
        if batch.ready is not None:
            with suppress(TimeoutError):
                batch.ready.result(batch.waits_s())
        leases = self._begin_batch(batch, None)
        missing = self._executor.preparation.missing
        if not leases or (missing and batch.type in missing and not self._is_prepared(*leases)):
            return
        thread = get_ident()
        attempts = self._watch_batch(leases, thread, partial(interrupt_thread, thread))
        try:
            outcomes = self._executor.run_batch(leases, self._extend_batch(attempts))
            self._end_batch(leases, outcomes, attempts)
            if any(attempt.interrupted for attempt in attempts.values()):
                forget_interrupt(thread)
        except SoftTimeLimitExceeded as error:
            self._end_batch(leases, fail_all(leases, error, 0.0), attempts)

    async def _run_batch_cancellable(self, batch: Batch) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("an async batch runs outside of any task of the loop")
        if batch.ready is not None:
            await asyncio.wait([asyncio.wrap_future(batch.ready)], timeout=batch.waits_s())
        over = False

        def cancel() -> None:
            if not over:
                task.cancel()

        tell = partial(self._loop.call_soon_threadsafe, cancel)
        leases = self._begin_batch(batch, tell)
        missing = self._executor.preparation.missing
        if leases and not (missing and batch.type in missing and not await self._is_prepared_async(*leases)):
            attempts = self._watch_batch(leases, get_ident(), tell)
            outcomes = await self._executor.run_batch_async(leases, self._extend_batch(attempts))
            over = True
            if task.cancelling() and any(attempt.interrupted for attempt in attempts.values()):
                error = SoftTimeLimitExceeded()
                outcomes = [each if each[2] == SUCCEEDED else failed(each[:2], error, each[5]) for each in outcomes]
            self._end_batch(leases, outcomes, attempts)
        over = True
        while task.cancelling():
            task.uncancel()

    def _begin_batch(self, batch: Batch, tell: Callable[[], object] | None) -> list[Lease]:
        with self._lock:
            leases = batch.leases if self._batcher is None else self._batcher.close(batch)
        for lease in leases:
            self._running[lease[0]] = tell
            self._batches[lease[0]] = batch
        return leases

    def _watch_batch(
        self, leases: Sequence[Lease], thread: int, interrupt: Callable[[], object]
    ) -> dict[TaskId, Attempt]:
        """Each has its own hard limit, and ends its process alone among them; the call is told once to come to an
        end, by the first soft one."""
        soft_s = min((lease[7].soft_timeout_s for lease in leases if lease[7].soft_timeout_s), default=0.0)
        attempts: dict[TaskId, Attempt] = {}
        for lease in leases:
            limits = lease[7]._replace(soft_timeout_s=0.0 if attempts else soft_s)
            if limits != NO_LIMITS:
                attempts[lease[0]] = self._watchdog.begin((*lease[:7], limits, *lease[8:]), thread, interrupt)
        return attempts

    def _extend_batch(self, attempts: dict[TaskId, Attempt]) -> Extend | None:
        """Whichever of its tasks asks: the limits of the call are put off, and so those of all of them."""
        return partial(self._extend, tuple(attempts.values())) if attempts else None

    def _end_batch(self, leases: Sequence[Lease], outcomes: list[Outcome], attempts: dict[TaskId, Attempt]) -> None:
        for lease in leases:
            attempt = attempts.get(lease[0])
            if attempt is not None and not self._watchdog.end(attempt):
                self._over(lease)
                outcomes = [outcome for outcome in outcomes if outcome[0] != lease[0]]
        self._tell_all(leases, outcomes)

    async def _run_cancellable(self, lease: Lease) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("an async task runs outside of any task of the loop")
        over = False

        def cancel() -> None:
            if not over:
                task.cancel()

        tell = partial(self._loop.call_soon_threadsafe, cancel)
        self._running[lease[0]] = tell
        missing = self._executor.preparation.missing
        if missing and lease[3] in missing and not await self._is_prepared_async(lease):
            over = True
            while task.cancelling():
                task.uncancel()
            return
        attempt = None if lease[7] == NO_LIMITS else self._watchdog.begin(lease, get_ident(), tell)
        extend = None if attempt is None else partial(self._extend, (attempt,))
        outcome = await self._executor.run_async(lease, extend)
        over = True
        ours = attempt is None or self._watchdog.end(attempt)
        if task.cancelling():
            while task.cancelling():
                task.uncancel()
            if outcome[2] != SUCCEEDED and attempt is not None and attempt.interrupted:
                outcome = failed(lease, SoftTimeLimitExceeded(), outcome[5])
        if ours:
            self._tell(lease, outcome)
        else:
            self._over(lease)

    def _extend(self, attempts: Sequence[Attempt], by_s: float) -> None:
        """Of one call. Raises `ExtensionRefused`."""
        for attempt in attempts:
            if attempt.extended_s + by_s > self._max_extended_s:
                raise ExtensionRefused(by_s, attempt.extended_s, self._max_extended_s)
        for attempt in attempts:
            self._watchdog.extend(attempt, by_s)
        self._extended(by_s)

    def _give_up(self, attempt: Attempt) -> None:
        frame = sys._current_frames().get(attempt.thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        limit_s = attempt.limit_s()
        self._overdue(as_killed(failed(attempt.lease, attempt.exceeds(limit_s), monotonic() - attempt.began, stack)))

    def _next(self, *, is_async: bool) -> Work | None:
        """What the slot goes on with; None where nothing waits, or where the other kind of task has the slot now."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return None
            work = self._pop()
        if self._on_loop(work) is is_async:
            return work
        self._start(work)
        return None
