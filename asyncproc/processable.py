"""How a task type is written: a pydantic model with `process`, or a function under `@task`.

Importing this module pulls in neither Ray nor a database driver: task modules are imported everywhere.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeAlias, TypeVar, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, create_model, model_validator
from pydantic.alias_generators import to_camel

from asyncproc.batch import Batch
from asyncproc.children import check_key
from asyncproc.core.retry import RetryPolicy
from asyncproc.errors import KeyRefused
from asyncproc.task_context import TaskContext
from asyncproc.unique import Unique

KeyMaker: TypeAlias = str | Callable[[Any], str | None] | None
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
