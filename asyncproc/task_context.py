"""The running task as its own code sees it: what it may say, ask for and enqueue."""

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from asyncproc.children import ChildOptions, check_key, check_options, seconds, terms_of
from asyncproc.clock import wall_now
from asyncproc.core.events import Lease
from asyncproc.core.retry import MAX_BACKOFF_S
from asyncproc.core.shape import shape_text
from asyncproc.core.task import MAX_DELAY_S, MAX_EDGES, MAX_TIMEOUT_S, OnParentFailure, Terms
from asyncproc.notes import Notebook, Notes, unsent
from asyncproc.parents import Parents, ParentsReader, parent_ids

if TYPE_CHECKING:
    from asyncproc.processable import Processable

MAX_CHILDREN: Final = 10_000
"""They travel with their parent's result, and are committed with it."""

S = TypeVar("S")


@dataclass(slots=True)
class Child:
    """A task that a running task enqueues; it exists if and only if its parent succeeds."""

    id: str
    model: "Processable"
    options: ChildOptions
    delay_s: float
    terms: Terms


@dataclass(slots=True)
class TaskContext:
    """The running task, as its own code sees it."""

    id: str
    attempt: int
    queue: str
    worker: str
    _services: Mapping[type, object] = field(default_factory=dict)
    _make_id: Callable[[], str] = field(default=lambda: "")
    _stops: Container[str] = ()
    _lease: Lease | None = None
    _notebook: Notebook | None = None
    _notes: Notes | None = None
    _extend: Callable[[float], None] | None = None
    children: list[Child] = field(default_factory=list)
    _parents: Parents | None = field(default=None, repr=False)
    _edges: int = 0

    @property
    def cancelled(self) -> bool:
        """Somebody wants this task to end. One that does so without success is cancelled, and what it still owes is
        its own matter; one that goes on is ended with its process after a while."""
        return self.id in self._stops

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far it has come: shown with the task, at most a second late. Costs a microsecond or two: call it as
        often as you like. Raises `NoteRefused` for what is no number from 0 on, and for a note that is too long."""
        self._noting().set_progress(done, total, note)

    def log(self, message: object, *args: object) -> None:
        """Add a line to the log that is kept with the task; `args` are put into it as in `logging`. The newest lines of
        each attempt are kept, and a long one is cut off."""
        text = str(message)
        self._noting().add_line(text % args if args else text)

    def checkpoint(self, value: Any) -> None:
        """Leave a JSON value for the next attempt, in place of the one before. It is on record a second later at most,
        and in any case when this attempt ends, however it does; where its process dies the last second is lost.
        Raises `NoteRefused` for what is no JSON value or too large."""
        self._noting().set_checkpoint(value)

    @property
    def last_checkpoint(self) -> Any:
        """The value that was last given to `checkpoint`, by this attempt or an earlier one; None where none was."""
        own = None if self._notes is None else self._notes.checkpoint
        if own is None and self._lease is not None:
            own = next(iter(self._lease[9:]), None)
        return None if own is None else json.loads(own)

    def _noting(self) -> Notes:
        if self._notes is None:
            if self._notebook is None or self._lease is None:
                self._notes = unsent()
            else:
                self._notes = self._notebook.of(self._lease)
        return self._notes

    def enqueue(
        self,
        task: "Processable",
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float = 0.0,
        run_at: datetime | None = None,
        start_by: datetime | None = None,
        deadline: datetime | None = None,
        back_off: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        soft_timeout: timedelta | float | None = None,
        concurrency_key: str | None = None,
        fairness_key: str | None = None,
        affinity_key: str | None = None,
        resources: Mapping[str, float | str] | None = None,
        depends_on: Sequence[str] = (),
        on_parent_failure: str = OnParentFailure.FAIL,
    ) -> str:
        """Enqueue another task together with this one's successful end, in the same commit; returns its id.

        What is not said here is as for any new task: what operators stored for its queue and type goes before the
        configuration and its code. Durations are in seconds where they are numbers; `delay` counts from the commit.
        It waits until all that it depends on have ended: ids, such as those of tasks that were enqueued here before.
        Nothing is enqueued where this attempt fails. Raises `ValueError` where no task can have such options, or where
        there are too many.
        """
        check_options(queue, priority)
        check_key("concurrency_key", concurrency_key)
        check_key("fairness_key", fairness_key)
        check_key("affinity_key", affinity_key)
        delay_s = seconds("delay", delay, MAX_DELAY_S)
        if run_at is not None and delay_s:
            raise ValueError("run_at stands beside delay: name one of them")
        now = wall_now()
        terms = terms_of(now, now + delay_s, run_at, start_by, deadline)
        if len(self.children) >= MAX_CHILDREN:
            raise ValueError(f"a task may enqueue {MAX_CHILDREN} others: let one of them enqueue the rest")
        options = ChildOptions(
            queue,
            priority,
            None if back_off is None else seconds("back_off", back_off, MAX_BACKOFF_S),
            None if timeout is None else seconds("timeout", timeout, MAX_TIMEOUT_S),
            None if soft_timeout is None else seconds("soft_timeout", soft_timeout, MAX_TIMEOUT_S),
            concurrency_key,
            fairness_key,
            affinity_key,
            None if resources is None else shape_text(resources),
        )
        ready_in_s = max(delay_s, terms.run_at - now)
        if depends_on:
            parents = parent_ids(depends_on, on_parent_failure, MAX_EDGES - self._edges)
            self._edges += len(parents.ids)
            terms = terms._replace(parents=parents)
        child = Child(self._make_id(), task, options, ready_in_s, terms)
        self.children.append(child)
        return child.id

    def extend(self, by: timedelta | float) -> None:
        """Put off the time limits of this attempt, in seconds where it is a number. What has none needs none; the soft
        limit stays where it is once it was told, and the deadline of the task always.

        Raises `ExtensionRefused` where that is more than `queue.maxExtended` allows one attempt in all.
        """
        by_s = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if not 0 < by_s <= MAX_DELAY_S:
            raise ValueError(f"extend by {by!r}: it must be more than 0 and at most {MAX_DELAY_S:.0f} seconds")
        if self._extend is not None:
            self._extend(by_s)

    @property
    def parents(self) -> Parents:
        """The tasks that this one depended on, by id or ref: how they ended, and what they returned.

        An `async def` task says `(await ctx.parents)["ref"]`, any other `ctx.parents["ref"]`.
        """
        if self._parents is None:
            self._parents = Parents(self.id, cast("ParentsReader | None", self._services.get(ParentsReader)))
        return self._parents

    def service(self, kind: type[S]) -> S | None:
        """What the worker was given under this type, such as the SMTP settings; None where it was not."""
        return cast("S | None", self._services.get(kind))
