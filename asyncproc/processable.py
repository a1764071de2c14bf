"""How a task type is written: a pydantic model with `process`, or a function under `@task`.

Importing this module pulls in neither Ray nor a database driver: task modules are imported everywhere.
"""

import inspect
import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Self, TypeAlias, TypeVar, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, create_model, model_validator
from pydantic.alias_generators import to_camel

from asyncproc.batch import Batch
from asyncproc.children import ChildOptions, check_key, check_options, seconds, terms_of
from asyncproc.clock import wall_now
from asyncproc.core.events import Lease
from asyncproc.core.retry import MAX_BACKOFF_S, RetryPolicy
from asyncproc.core.shape import shape_text
from asyncproc.core.task import MAX_DELAY_S, MAX_EDGES, MAX_TIMEOUT_S, OnParentFailure, Terms
from asyncproc.errors import KeyRefused
from asyncproc.notes import Notebook, Notes, unsent
from asyncproc.parents import Parents, ParentsReader, parent_ids
from asyncproc.unique import Unique

MAX_CHILDREN: Final = 10_000
"""They travel with their parent's result, and are committed with it."""

KeyMaker: TypeAlias = str | Callable[[Any], str | None] | None
S = TypeVar("S")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a type says of its tasks; None leaves it to the configuration."""

    name: str
    queue: str | None = None
    priority: int | None = None
    retry: int | RetryPolicy | None = None
    """A number of retries with the configured back-off, or a policy of `asyncproc.core.retry`."""
    pool: str | None = None
    timeout: timedelta | float | None = None
    """How long one attempt may take, in seconds where it is a number: then it fails, and its process is ended."""
    soft_timeout: timedelta | float | None = None
    """When the task is told to come to an end: `SoftTimeLimitExceeded` is raised in it; an `async def` is cancelled."""
    concurrency_key: "KeyMaker" = None
    """Text, or what makes it of the payload."""
    fairness_key: "KeyMaker" = None
    unique: Unique | None = None
    """What makes its tasks the only ones of their kind where they do not say. Not asked of tasks that tasks enqueue."""
    resources: Mapping[str, float | str] | None = None
    """What its worker is to have for it alone: `num_cpus`, `num_gpus`, `memory` and custom resources of Ray, such as
    `{"num_gpus": 0.5, "memory": "2GiB"}`. It runs in a pool that the system keeps for all that ask for the same."""
    batch: Batch | None = None
    """Of a type with `process_batch`."""


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


class Processable(BaseModel):
    """The payload of a task and the work to do with it. Subclass it, declare fields, write `process`.

    JSON keys are the fields' names in camelCase or as written; failing that, matched without regard to case.
    Class arguments set options: `class Resize(Processable, queue="images", priority=5, retry=3)`.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    task_options: ClassVar[TaskOptions] = TaskOptions("Processable")
    _keys: ClassVar[dict[str, str]] = {}
    _exact: ClassVar[frozenset[str]] = frozenset()
    """Keys that are right as they are: names and aliases of the fields."""

    def __init_subclass__(cls, **options: Any) -> None:
        # Read below, once the fields are known; `object` would refuse them here.
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        retry: int | RetryPolicy | None = None,
        pool: str | None = None,
        timeout: timedelta | float | None = None,
        soft_timeout: timedelta | float | None = None,
        concurrency_key: KeyMaker = None,
        fairness_key: KeyMaker = None,
        unique: Unique | None = None,
        resources: Mapping[str, float | str] | None = None,
        batch: Batch | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise TypeError(
                f"{cls.__name__}: {', '.join(kwargs)} is no class option: name, queue, priority, retry, pool, timeout,"
                " soft_timeout, concurrency_key, fairness_key, unique, resources and batch are"
            )
        if not takes_batches(cls):
            if batch is not None:
                raise TypeError(f"{cls.__name__} has batch=..., and no process_batch(cls, tasks, ctxs) that takes one")
        elif batch is None:
            batch = Batch()
        super().__pydantic_init_subclass__()
        cls.task_options = TaskOptions(
            name or cls.__name__,
            queue,
            priority,
            retry,
            pool,
            timeout,
            soft_timeout,
            concurrency_key,
            fairness_key,
            unique,
            resources,
            batch,
        )
        cls._keys = {}
        for field_name, info in cls.model_fields.items():
            cls._keys[field_name.casefold()] = field_name
            cls._keys[(info.alias or field_name).casefold()] = field_name
        cls._exact = frozenset(key for at, info in cls.model_fields.items() for key in (at, info.alias or at))

    @model_validator(mode="before")
    @classmethod
    def _match_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        exact = cls._exact
        if value.keys() <= exact:
            return value
        matched = {k: v for k, v in value.items() if k in exact}
        taken = {cls._keys[key.casefold()] for key in matched}
        for key, item in value.items():
            target = None if key in exact else cls._keys.get(key.casefold())
            if target is None:
                matched.setdefault(key, item)
            elif target not in taken:
                # By the name under which an error shows it: the one that clients know.
                matched[cls.model_fields[target].alias or target] = item
        return matched

    @classmethod
    def setup(cls) -> Any:
        """Make what all tasks of the class share in one process, such as a model that takes long to load, and keep it
        in the class. Called before its first task there; may be `async def` where `process` is. What it raises fails
        the attempt, and it is tried again for the next one."""

    @classmethod
    def teardown(cls) -> Any:
        """Let go of what `setup` made, before the process ends in good order. May be `async def` where `process` is."""

    def process(self, ctx: TaskContext) -> Any:
        """Do the work; return a JSON value or None. May be `async def`. Whatever it raises fails the attempt."""
        raise NotImplementedError(f"{type(self).__name__} has no process(self, ctx)")

    @classmethod
    def process_batch(cls, tasks: list[Self], ctxs: list[TaskContext]) -> Any:
        """Do the work of several tasks in one call, in place of `process`. May be `async def`; `Batch` says how many.

        Return a list with the result of each, in their order; an exception in it fails that task alone, and `Retry`,
        `Snooze` and `Fail` say of it what they say when they are raised. What the call itself raises fails all of them.
        """
        raise NotImplementedError(f"{cls.__name__} has no process_batch(cls, tasks, ctxs)")


def is_async(cls: type[Processable]) -> bool:
    """Whether the work of the type runs on an event loop."""
    return inspect.iscoroutinefunction(cls.process_batch if takes_batches(cls) else cls.process)


def takes_batches(cls: type[Processable]) -> bool:
    """Whether the class takes several tasks in one call."""
    own, none = cls.process_batch, Processable.process_batch
    return own.__func__ is not none.__func__  # type: ignore[attr-defined]  # class methods have it


def keys_of(model: Processable, concurrency_key: str | None, fairness_key: str | None) -> tuple[str | None, str | None]:
    """What the task says itself, and otherwise what its type does; an empty one is none. Raises `KeyRefused`."""
    options = model.task_options
    return (
        _key(model, "concurrency_key", options.concurrency_key) if concurrency_key is None else concurrency_key,
        _key(model, "fairness_key", options.fairness_key) if fairness_key is None else fairness_key,
    )


def _key(model: Processable, name: str, maker: KeyMaker) -> str | None:
    if maker is None:
        return None
    try:
        key = maker(model) if callable(maker) else maker
        check_key(name, key)
        if key is not None:
            key.encode()
    except Exception as error:
        # Whatever the type's code raises: the task cannot be had as it is.
        raise KeyRefused(name, f"{type(error).__name__}: {error}"[:1_000]) from error
    return key


@overload
def task(function: Function) -> Function: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    retry: int | RetryPolicy | None = None,
    pool: str | None = None,
    timeout: timedelta | float | None = None,
    soft_timeout: timedelta | float | None = None,
    concurrency_key: KeyMaker = None,
    fairness_key: KeyMaker = None,
    unique: Unique | None = None,
    resources: Mapping[str, float | str] | None = None,
) -> Callable[[Function], Function]: ...
def task(
    function: Function | None = None,
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    retry: int | RetryPolicy | None = None,
    pool: str | None = None,
    timeout: timedelta | float | None = None,
    soft_timeout: timedelta | float | None = None,
    concurrency_key: KeyMaker = None,
    fairness_key: KeyMaker = None,
    unique: Unique | None = None,
    resources: Mapping[str, float | str] | None = None,
) -> Function | Callable[[Function], Function]:
    """Make a task type of a function: its parameters are the payload, one annotated `TaskContext` gets the context.

    The function stays what it was; its type is at `function.processable`.
    """

    def decorate(target: Function) -> Function:
        options = TaskOptions(
            name or target.__name__,
            queue,
            priority,
            retry,
            pool,
            timeout,
            soft_timeout,
            concurrency_key,
            fairness_key,
            unique,
            resources,
        )
        target.__dict__["processable"] = _from_function(target, options)
        return target

    return decorate if function is None else decorate(function)


def _from_function(function: Callable[..., Any], options: TaskOptions) -> type[Processable]:
    hints = get_type_hints(function)
    fields: dict[str, Any] = {}
    context_name = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"@task {options.name}: parameter {parameter.name} must be an ordinary one")
        if hints.get(parameter.name) is TaskContext:
            context_name = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    names = tuple(fields)

    def arguments(self: Processable, ctx: TaskContext) -> dict[str, Any]:
        values = {field_name: getattr(self, field_name) for field_name in names}
        return values if context_name is None else {**values, context_name: ctx}

    if inspect.iscoroutinefunction(function):

        async def process_async(self: Processable, ctx: TaskContext) -> Any:
            return await function(**arguments(self, ctx))

        process: Callable[[Processable, TaskContext], Any] = process_async
    else:

        def process_sync(self: Processable, ctx: TaskContext) -> Any:
            return function(**arguments(self, ctx))

        process = process_sync
    made = create_model(options.name, __base__=Processable, __module__=function.__module__, **fields)
    made.task_options = options
    made.process = process  # type: ignore[assignment, method-assign]  # a class made here has its method only now
    return made
