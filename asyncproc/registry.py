"""Task types by name, and what their tasks are enqueued with."""

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import to_json

from asyncproc.children import check_options
from asyncproc.config import DEFAULT, BatchSettings, Settings
from asyncproc.core.batches import Batching
from asyncproc.core.duration import parse_duration
from asyncproc.core.origin import Origin
from asyncproc.core.retry import MAX_ATTEMPTS, MAX_BACKOFF_S, RetryPolicy, constant, exponential
from asyncproc.core.shape import shape_text
from asyncproc.core.task import MAX_TIMEOUT_S, MAX_TYPE_NAME, NO_LIMITS, Options, TimeLimits
from asyncproc.errors import AsyncprocError, KeyRefused
from asyncproc.handlers import HandlerCall
from asyncproc.plans import NO_KEYS, OTHER_INSTANT, Keys, ScheduleSettings
from asyncproc.pool_settings import PoolRuleSettings
from asyncproc.precedence import NOTHING, BackOff, TaskValues, task_defaults
from asyncproc.processable import Processable, is_async, keys_of
from asyncproc.rules import Stored
from asyncproc.unique import Unique

MAX_KNOWN: Final = 10_000
"""Pairs of a type and a queue of which it is known what their tasks are enqueued with."""


@dataclass(eq=False)
class RegistryError(AsyncprocError):
    """The task modules cannot be used as they are."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass(eq=False)
class UnknownTaskType(AsyncprocError):
    """Nobody registered a type of this name."""

    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"unknown task type {self.name[:100]!r}: known are {', '.join(self.known)}"


@dataclass(frozen=True, slots=True)
class TaskType:
    cls: type[Processable]
    queue: str
    own: TaskValues = NOTHING
    """What its code says of its tasks."""
    resources: str = ""
    """What each of its tasks asks for, as `Options.resources` has it."""
    keys: tuple[str, str] = ("", "")
    """Concurrency key and fairness key, where they are the same for all of its tasks."""


class Registry:
    def __init__(self, types: Mapping[str, TaskType], settings: Settings) -> None:
        self._types = dict(types)
        self._settings = settings
        self._stored = Stored()
        self._served = served_types(settings, self._stored)
        self._assumed: set[str] = set()
        self._known: dict[tuple[str, str], Options] = {}
        found = {name: known.cls.task_options.unique for name, known in types.items()}
        self.uniques = {name: unique for name, unique in found.items() if unique is not None}
        """By type, what makes its tasks the only ones of their kind where they do not say."""

    def obey(self, stored: Stored) -> None:
        """Enqueue by these settings from now on; costs nothing where it does already."""
        if stored is self._stored:
            return
        self._stored = stored
        self._served = served_types(self._settings, stored)
        self._known.clear()

    def names(self) -> list[str]:
        return sorted({*self._types, *self._served})

    def assume(self, name: str) -> None:
        """A type that is not known here is one whose code says nothing: its tasks show that nobody can run them."""
        self._assumed.add(name)

    def batching(self) -> dict[str, Batching]:
        """The types that take several tasks in one call, and how many."""
        found: dict[str, Batching] = {}
        for name, task_type in self._types.items():
            batch = task_type.cls.task_options.batch
            if batch is not None:
                said = self._settings.batches.get(name, BatchSettings())
                found[name] = Batching(
                    batch.size if said.size is None else said.size, batch.wait_s if said.wait is None else said.wait
                )
        return found

    def get(self, name: str) -> TaskType:
        """Raises `UnknownTaskType`."""
        found = self._types.get(name) or self._served.get(name)
        if found is None and name in self._assumed:
            return TaskType(Processable, DEFAULT)
        if found is None:
            raise UnknownTaskType(name, tuple(self.names()))
        return found

    def declared(self) -> dict[str, TaskType]:
        """What the types say of their tasks, without their code: it can go where that must not be imported."""
        return {name: replace(found, cls=Processable) for name, found in self._types.items()}

    def validate(self, name: str, payload: Mapping[str, Any]) -> bytes:
        """The payload as compact JSON, once its model has accepted it; the keys stay as they were sent.

        The JSON is what the model sees, here as in the worker: what one accepts the other does too.
        Raises `UnknownTaskType` and `pydantic.ValidationError`.
        """
        body = to_json(payload)
        self.get(name).cls.model_validate_json(body)
        return body

    def as_seen(self, name: str, payload: bytes) -> dict[str, Any]:
        """A payload as its model has it, with defaults, as JSON values. Raises `PydanticSerializationError`."""
        return self.get(name).cls.model_validate_json(payload).model_dump(mode="json", by_alias=True)

    def keys_of(
        self, name: str, payload: bytes, concurrency_key: str | None, fairness_key: str | None
    ) -> tuple[str | None, str | None]:
        """Of a validated payload; what the task says itself goes before its type. Raises `KeyRefused`."""
        cls = self.get(name).cls
        if cls.task_options.concurrency_key is None and cls.task_options.fairness_key is None:
            return concurrency_key, fairness_key
        return keys_of(cls.model_validate_json(payload), concurrency_key, fairness_key)

    def options_for(
        self,
        name: str,
        *,
        queue: str | None = None,
        priority: int | None = None,
        backoff_s: float | None = None,
        timeout_s: float | None = None,
        soft_timeout_s: float | None = None,
        created_by: str = "",
        concurrency_key: str | None = None,
        fairness_key: str | None = None,
        affinity_key: str | None = None,
        resources: str | None = None,
    ) -> Options:
        """A task's own values before all others. Raises `UnknownTaskType`. `resources` are as `shape_text` has them."""
        if queue is None:
            queue = self.get(name).queue
        plain = self._plain(name, queue)
        asked = (priority, None, backoff_s, timeout_s, soft_timeout_s)
        retry = plain.retry if backoff_s is None else constant(plain.retry.max_attempts, backoff_s)
        return Options(
            name,
            queue,
            plain.priority if priority is None else priority,
            retry,
            created_by,
            _limits(plain.limits, timeout_s, soft_timeout_s),
            plain.concurrency_key if concurrency_key is None else concurrency_key,
            plain.fairness_key if fairness_key is None else fairness_key,
            "".join(
                letter if own is None else Origin.TASK.letter for letter, own in zip(plain.origins, asked, strict=True)
            ),
            affinity_key or "",
            plain.resources if resources is None else resources,
        )

    def schedule_keys(self, settings: ScheduleSettings) -> Keys:
        """What the type makes of the payload of a schedule, where that does not say its keys itself. Raises
        `UnknownTaskType` and `KeyRefused`: for one thing where each tick would have another key."""
        said = (settings.concurrency_key, settings.fairness_key)
        made, other = (
            self.keys_of(settings.task_type, to_json(example), *said)
            for example in (settings.example(), settings.example(OTHER_INSTANT))
        )
        for field, first, second in zip(("concurrency_key", "fairness_key"), made, other, strict=True):
            if first != second:
                raise KeyRefused(field, "it would be another one with each tick: say the one for all of them")
        return made

    def scheduled(self, name: str, settings: ScheduleSettings, keys: Keys = NO_KEYS) -> Options:
        """What the tasks of a schedule are enqueued with; `keys` are `schedule_keys`. Raises `UnknownTaskType`."""
        back_off = settings.back_off_duration
        said = zip((settings.concurrency_key, settings.fairness_key), keys, strict=True)
        concurrency_key, fairness_key = (made if own is None else own for own, made in said)
        return self.options_for(
            settings.task_type,
            queue=settings.queue,
            priority=settings.priority,
            backoff_s=None if back_off is None else parse_duration(back_off),
            timeout_s=settings.timeout,
            soft_timeout_s=settings.soft_timeout,
            created_by=f"schedule {name}",
            concurrency_key=concurrency_key,
            fairness_key=fairness_key,
            affinity_key=settings.affinity_key,
            resources=None if settings.resources is None else shape_text(settings.resources),
        )

    def _plain(self, name: str, queue: str) -> Options:
        """What a task of this type is enqueued with in this queue where it says nothing. Raises `UnknownTaskType`."""
        known = self._known.get((name, queue))
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()  # queues are named by whoever enqueues
            of_type = self.get(name)
            found = task_defaults(self._settings, self._stored, name, queue, of_type.own)
            known = self._known[name, queue] = Options(
                name,
                queue,
                found.priority.value,
                found.retry,
                "",
                found.limits,
                *of_type.keys,
                origins=found.origins,
                resources=of_type.resources,
            )
        return known


def served_types(settings: Settings, stored: Stored) -> dict[str, TaskType]:
    """The types that the workers of pools bring along."""
    found: dict[str, TaskType] = {}
    for name in {**settings.pools, **stored.pools}:
        said, configured = stored.pools.get(name, _SILENT), settings.pools.get(name, _SILENT)
        handlers = configured.handlers if said.handlers is None else said.handlers
        queues = configured.queues if said.queues is None else said.queues
        for handler, asked in (handlers or {}).items():
            own = TaskValues(max_task_retry=asked.max_task_retry)
            found.setdefault(handler, TaskType(HandlerCall, queues[0] if queues else DEFAULT, own))
    return found


_SILENT: Final = PoolRuleSettings()


def from_settings(settings: Settings, start_dir: Path | None = None) -> Registry:
    """Import the built-in types and those of the configured modules. Raises `RegistryError` naming module and cause."""
    if start_dir is not None and str(start_dir) not in sys.path:
        sys.path.insert(0, str(start_dir))
    pool_of = settings.pool_of()
    types: dict[str, TaskType] = {}
    for module_name in ("asyncproc.tasks", *settings.tasks):
        for cls in _processables(_import(module_name)):
            name = cls.task_options.name
            known = types.get(name)
            if known is not None and known.cls is not cls:
                raise RegistryError(
                    f"two task types are called {name}: in {known.cls.__module__} and in {cls.__module__};"
                    " give one of them another name=..."
                )
            types[name] = _resolve(cls, pool_of)
    batching = sorted(each for each in types if types[each].cls.task_options.batch is not None)
    for unknown in settings.batches.keys() - {*batching}:
        raise RegistryError(
            f"batches.{unknown}: there is no such type with process_batch: known are {', '.join(batching) or 'none'}"
        )
    registry = Registry(types, settings)
    for name, schedule in settings.schedules.items():
        _check(registry, name, schedule)
    return registry


def _check(registry: Registry, name: str, schedule: ScheduleSettings) -> None:
    try:
        registry.validate(schedule.task_type, schedule.example())
        registry.schedule_keys(schedule)
    except KeyRefused as error:
        raise RegistryError(f"schedules.{name}: {error}") from error
    except UnknownTaskType as error:
        raise RegistryError(f"schedules.{name}.taskType: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("schedules", name, "payload", *first["loc"])))
        raise RegistryError(f"{where}: {first['msg']}") from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        # Whatever a user's module raises is the answer to "why can it not be imported".
        raise RegistryError(f"task module {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _processables(module: ModuleType) -> list[type[Processable]]:
    found: list[type[Processable]] = []
    for value in vars(module).values():
        candidate = value if isinstance(value, type) else getattr(value, "processable", None)
        if isinstance(candidate, type) and issubclass(candidate, Processable) and candidate is not Processable:
            found.append(candidate)
    return found


def _resolve(cls: type[Processable], pool_of: Mapping[str, str]) -> TaskType:
    options = cls.task_options
    if not options.name.isprintable() or len(options.name) > MAX_TYPE_NAME:
        raise RegistryError(
            f"a task type is called {options.name!r:.300}: a name is {MAX_TYPE_NAME} characters at most"
        )
    if not is_async(cls) and (inspect.iscoroutinefunction(cls.setup) or inspect.iscoroutinefunction(cls.teardown)):
        raise RegistryError(
            f"task type {options.name}: setup and teardown run where its work does: they can be async only if that is"
        )
    queue = options.queue or options.pool or DEFAULT
    try:
        check_options(queue, options.priority)
    except ValueError as error:
        raise RegistryError(f"task type {options.name}: {error}") from error
    served_by = pool_of.get(queue, DEFAULT)
    if options.pool is not None and served_by != options.pool:
        raise RegistryError(
            f"task type {options.name} wants pool {options.pool!r}, but its queue {queue!r} is served by pool"
            f" {served_by!r}: name the queue under pools.{options.pool}.queues"
        )
    retry = options.retry
    if isinstance(retry, int):
        retry = exponential(retry + 1)
    elif retry is not None and not isinstance(retry, RetryPolicy):
        raise RegistryError(f"task type {options.name}: retry must be a number of retries or a RetryPolicy")
    if retry is not None and not _can_be_kept(retry):
        raise RegistryError(
            f"task type {options.name}: {retry} cannot be used: attempts are 1 to {MAX_ATTEMPTS}, waits 0 to"
            f" {MAX_BACKOFF_S:.0f} seconds, the factor is 1 or more, jitter 0 to 1"
        )
    if options.unique is not None and not isinstance(options.unique, Unique):
        raise RegistryError(f"task type {options.name}: unique must be a Unique(...)")
    timeout_s, soft_timeout_s = _seconds(options.timeout), _seconds(options.soft_timeout)
    try:
        _limits(NO_LIMITS, timeout_s, soft_timeout_s)
        resources = shape_text(options.resources or {})
    except (TypeError, ValueError) as error:
        raise RegistryError(f"task type {options.name}: {error}") from error
    own = TaskValues(
        options.priority,
        None if retry is None else retry.max_attempts - 1,
        BackOff(*options.retry[1:]) if isinstance(options.retry, RetryPolicy) else None,
        timeout_s,
        soft_timeout_s,
    )
    keys = (options.concurrency_key, options.fairness_key)
    concurrency_key, fairness_key = (key if isinstance(key, str) else "" for key in keys)
    return TaskType(cls, queue, own, resources, (concurrency_key, fairness_key))


def _seconds(value: timedelta | float | None) -> float | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _limits(given: TimeLimits, timeout_s: float | None, soft_timeout_s: float | None) -> TimeLimits:
    """What is None stays as given. Raises `ValueError` for what cannot be kept."""
    for name, value in (("timeout", timeout_s), ("soft timeout", soft_timeout_s)):
        if value is not None and not 0 <= value <= MAX_TIMEOUT_S:
            raise ValueError(
                f"{name} is {value!r:.100}: it must be between 0 (no limit) and {MAX_TIMEOUT_S:.0f} seconds"
            )
    if timeout_s is None and soft_timeout_s is None:
        return given
    return TimeLimits(
        given.timeout_s if timeout_s is None else float(timeout_s),
        given.soft_timeout_s if soft_timeout_s is None else float(soft_timeout_s),
    )


def _can_be_kept(retry: RetryPolicy) -> bool:
    return (
        type(retry.max_attempts) is int
        and 1 <= retry.max_attempts <= MAX_ATTEMPTS
        and 0 <= retry.base_s <= MAX_BACKOFF_S
        and 0 <= retry.cap_s <= MAX_BACKOFF_S
        and 1 <= retry.factor < float("inf")
        and 0 <= retry.jitter <= 1
    )
