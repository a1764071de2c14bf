"""How a task type is written: a pydantic model with `process`, or a function under `@task`.

Importing this module pulls in neither Ray nor a database driver: task modules are imported everywhere.
"""

import inspect
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, create_model, model_validator
from pydantic.alias_generators import to_camel

from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.retry import RetryPolicy
from asyncproc.core.task import MAX_DELAY_S, QUEUE_NAME

MAX_CHILDREN: Final = 10_000
"""They travel with their parent's result, and are committed with it."""
_QUEUE_NAME: Final = re.compile(QUEUE_NAME)

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
    resources: Mapping[str, float | str] | None = None
    """What its worker is to have for it alone: `num_cpus`, `num_gpus`, `memory` and custom resources of Ray, such as
    `{"num_gpus": 0.5, "memory": "2GiB"}`. It runs in a pool that the system keeps for all that ask for the same."""


def check_options(queue: str | None, priority: int | None) -> None:
    """Raises `ValueError` for what no task can have; None leaves it to somebody else."""
    if queue is not None and (not isinstance(queue, str) or not _QUEUE_NAME.fullmatch(queue)):
        raise ValueError(f"queue is {queue!r:.100}: it must match {QUEUE_NAME}")
    if priority is not None and (type(priority) is not int or not MIN_PRIORITY <= priority <= MAX_PRIORITY):
        raise ValueError(f"priority is {priority!r:.100}: it must be an int from {MIN_PRIORITY} to {MAX_PRIORITY}")


@dataclass(slots=True)
class Child:
    """A task that a running task enqueues; it exists if and only if its parent succeeds."""

    id: str
    model: "Processable"
    queue: str | None
    priority: int | None
    delay_s: float


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
    children: list[Child] = field(default_factory=list)

    @property
    def cancelled(self) -> bool:
        """Somebody wants this task to end. One that does so without success is cancelled, and what it still owes is
        its own matter; one that goes on is ended with its process after a while."""
        return self.id in self._stops

    def enqueue(
        self,
        task: "Processable",
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float = 0.0,
    ) -> str:
        """Enqueue another task together with this one's successful end, in the same commit; returns its id.

        `delay` is in seconds where it is a number. Nothing is enqueued where this attempt fails. Raises `ValueError`
        where no task can have such a queue, priority or delay, or where there are too many.
        """
        check_options(queue, priority)
        delay_s = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise ValueError(f"delay is {delay!r}: it must be between 0 and {MAX_DELAY_S:.0f} seconds")
        if len(self.children) >= MAX_CHILDREN:
            raise ValueError(f"a task may enqueue {MAX_CHILDREN} others: let one of them enqueue the rest")
        child = Child(self._make_id(), task, queue, priority, delay_s)
        self.children.append(child)
        return child.id

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
        resources: Mapping[str, float | str] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise TypeError(
                f"{cls.__name__}: {', '.join(kwargs)} is no class option: name, queue, priority, retry, pool, timeout,"
                " soft_timeout and resources are"
            )
        super().__pydantic_init_subclass__()
        cls.task_options = TaskOptions(
            name or cls.__name__, queue, priority, retry, pool, timeout, soft_timeout, resources
        )
        cls._keys = {}
        for field_name, info in cls.model_fields.items():
            cls._keys[field_name.casefold()] = field_name
            cls._keys[(info.alias or field_name).casefold()] = field_name

    @model_validator(mode="before")
    @classmethod
    def _match_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = cls.model_fields
        exact = {key for name, info in fields.items() for key in (name, info.alias)}
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
                matched[fields[target].alias or target] = item
        return matched

    def process(self, ctx: TaskContext) -> Any:
        """Do the work; return a JSON value or None. May be `async def`. Whatever it raises fails the attempt."""
        raise NotImplementedError(f"{type(self).__name__} has no process(self, ctx)")


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
    resources: Mapping[str, float | str] | None = None,
) -> Function | Callable[[Function], Function]:
    """Make a task type of a function: its parameters are the payload, one annotated `TaskContext` gets the context.

    The function stays what it was; its type is at `function.processable`.
    """

    def decorate(target: Function) -> Function:
        options = TaskOptions(name or target.__name__, queue, priority, retry, pool, timeout, soft_timeout, resources)
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
