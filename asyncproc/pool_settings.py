"""What can be said of a pool of workers, and what its workers are made of."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import to_json

from asyncproc.core.retry import MAX_ATTEMPTS
from asyncproc.core.scaling import Bounds
from asyncproc.core.shape import MAX_AMOUNT, amount, bytes_text, custom_name, parse_bytes
from asyncproc.core.task import MAX_TYPE_NAME
from asyncproc.sections import Name, Seconds, Section

MiB: Final = 1024 * 1024
MAX_WORKERS: Final = 10_000
MAX_RUNTIME_ENV: Final = 64 * 1024
"""Bytes of a runtime environment, as JSON."""
MAX_ENTRIES: Final = 100
MAX_HANDLERS: Final = 200
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def _bytes(value: object) -> object:
    return parse_bytes(value) if isinstance(value, str) else value


def _whole_gpus(value: float) -> float:
    return amount("numGpus", value, whole_above_one=True)


def _custom(value: dict[str, float]) -> dict[str, float]:
    return {custom_name(name): amount(name, number) for name, number in value.items()}


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r:.100} is no name of an environment variable")
        if "\x00" in text:
            raise ValueError(f"{name} contains NUL, which no environment can hold")
    return value


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError(f"{name!r:.100} has characters that cannot be printed")
    return name


def _runtime_env(value: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(to_json(value))
    except ValueError as error:
        raise ValueError(f"must be JSON: {error}") from None
    if size > MAX_RUNTIME_ENV:
        raise ValueError(f"is {size} bytes: at most {MAX_RUNTIME_ENV} are allowed")
    if "\\u0000" in to_json(value).decode():
        raise ValueError("contains NUL, which Postgres cannot store")
    return value


Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    Field(ge=64 * MiB, le=1024**5),
    PlainSerializer(bytes_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "description": "Bytes", "examples": ["2GiB"]}),
]
Amount = Annotated[float, Field(ge=0, le=MAX_AMOUNT, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=10_000)]
HandlerName = Annotated[str, AfterValidator(_printable), Field(min_length=1, max_length=MAX_TYPE_NAME)]


class WorkerRange(Section):
    """How many workers there are at least and at most: in between as many as the backlog asks for."""

    min: int = Field(default=0, ge=0, le=MAX_WORKERS)
    max: int = Field(ge=1, le=MAX_WORKERS)

    @model_validator(mode="after")
    def _in_order(self) -> "WorkerRange":
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, which is more than max, {self.max}")
        return self


class HandlerSettings(Section):
    """What is said of a task type by whoever brings it along."""

    max_task_retry: int | None = Field(default=None, ge=0, lt=MAX_ATTEMPTS)
    """Further attempts after the first one failed."""


class PoolRuleSettings(Section):
    """WorkerActors of one kind. None is "not said"."""

    queues: list[Name] | None = Field(default=None, min_length=1, max_length=1_000)
    """The queues that they serve."""
    workers: Annotated[int, Field(ge=0, le=MAX_WORKERS)] | WorkerRange | None = None
    """A number, or `min` and `max`: between them the backlog decides."""
    target_wait: Seconds | None = None
    """How long a task may wait before there are more workers."""
    idle_after: Seconds | None = None
    """For how long fewer workers were enough before there are fewer."""
    concurrency: int | None = Field(default=None, ge=1, le=1_000)
    """Tasks that one of them runs at once."""
    num_cpus: Amount | None = None
    """CPUs that Ray sets aside for each worker; more than a node has never starts."""
    num_gpus: Annotated[Amount, AfterValidator(_whole_gpus)] | None = None
    """GPUs that Ray sets aside for each worker; parts of one, or whole ones."""
    memory: Bytes | None = None
    """Bytes that Ray sets aside for each worker."""
    resources: Annotated[dict[str, Amount], AfterValidator(_custom), Field(max_length=8)] | None = None
    """Custom resources that Ray sets aside for each worker."""
    labels: dict[Annotated[str, Field(max_length=300)], Annotated[str, Field(max_length=300)]] | None = Field(
        default=None, max_length=MAX_ENTRIES
    )
    """Labels that a node must have, as Ray's `label_selector` takes them."""
    runtime_env: Annotated[dict[str, Any], AfterValidator(_runtime_env)] | None = None
    """Ray's runtime environment of each worker: `pip`, `env_vars` and so on, passed on as it is."""
    environment: Annotated[dict[str, Text], AfterValidator(_variables), Field(max_length=MAX_ENTRIES)] | None = None
    """Environment variables, set before the task modules are imported."""
    recycle_after: int | None = Field(default=None, ge=1)
    """A worker is replaced once it has ended so many tasks: for code that leaks."""
    recycle_above: Bytes | None = None
    """A worker is replaced once it takes so many bytes of memory."""
    handlers: dict[HandlerName, HandlerSettings] | None = Field(default=None, max_length=MAX_HANDLERS)
    """Task types that whoever works here brings along, such as deployments of Ray Serve: no task module has them."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What holds for a pool. Dictionaries are not changed."""

    queues: tuple[str, ...] = ()
    least: int = 1
    most: int = 1
    """Workers."""
    target_wait_s: float = 5.0
    idle_after_s: float = 30.0
    concurrency: int = 1
    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    recycle_after: int | None = None
    recycle_above: int | None = None

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.least, self.most, self.target_wait_s, self.idle_after_s, self.concurrency)

    @property
    def fingerprint(self) -> str:
        """Changes with what each of its workers is made of: those of another one are replaced."""
        made_of = [getattr(self, entry.name) for entry in fields(self) if entry.name not in _OF_THE_POOL]
        return hashlib.sha256(to_json(made_of)).hexdigest()[:4]

    def needs(self) -> dict[str, float]:
        """What Ray sets aside for each worker, by Ray's names."""
        own = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory or 0), **self.resources}
        return {name: number for name, number in own.items() if number}


_OF_THE_POOL: Final = frozenset({"queues", "least", "most", "target_wait_s", "idle_after_s"})
