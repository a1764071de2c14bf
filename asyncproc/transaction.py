"""Enqueue with a transaction of the caller's: the task exists if and only if that one is committed.

No driver is imported: whatever has `execute`, and takes `%s` in it, will do.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from inspect import iscoroutine
from typing import Any, Final, Protocol, TypedDict, Unpack

from pydantic_core import to_json

from asyncproc.children import check_options
from asyncproc.core.shape import shape_text
from asyncproc.core.task import MAX_PARENTS, OnParentFailure
from asyncproc.parents import parent_ids
from asyncproc.processable import Processable, keys_of

Payload = Mapping[str, Any]
Wanted = Processable | type[Processable] | Callable[..., Any] | str
"""A payload, or the class or function of a task type, or its name."""


class Options(TypedDict, total=False):
    """What is left out, or None, is up to the type and the settings."""

    queue: str | None
    priority: int | None
    """Higher is sooner."""
    delay: timedelta | float | None
    """How long it waits before it is ready; in seconds where it is a number, as all that follow."""
    run_at: datetime | None
    """Not before this instant, in place of `delay`; one that is past is now."""
    start_by: datetime | None
    """Not begun by then it is cancelled, and never runs."""
    deadline: datetime | None
    """Not succeeded by then it fails, whatever attempts are left."""
    timeout: timedelta | float | None
    """How long one attempt may take: then it fails, and its process is ended."""
    soft_timeout: timedelta | float | None
    """When a running attempt is told to come to an end."""
    back_off: timedelta | float | None
    """Between attempts; constant, without jitter."""
    concurrency_key: str | None
    fairness_key: str | None
    created_by: str | None
    affinity_key: str | None
    resources: Mapping[str, float | str] | None
    """What its worker is to have for it alone, in place of what its type asks for."""
    depends_on: Sequence[str] | None
    """Ids of tasks that must have ended before it begins, such as those that were enqueued with this transaction."""
    on_parent_failure: str | None
    """What becomes of it when one of them does not succeed: `fail` (where nothing is said), `skip` or `run`."""


_CASTS: Final = {
    "queue": "text",
    "priority": "integer",
    "delay": "interval",
    "run_at": "timestamptz",
    "start_by": "timestamptz",
    "deadline": "timestamptz",
    "timeout": "interval",
    "soft_timeout": "interval",
    "back_off": "interval",
    "concurrency_key": "text",
    "fairness_key": "text",
    "created_by": "text",
    "affinity_key": "text",
    "resources": "jsonb",
    "depends_on": "uuid[]",
    "on_parent_failure": "text",
}


class Connection(Protocol):
    """A connection or a cursor to the database that keeps the tasks."""

    @property
    def execute(self) -> Callable[..., Any]: ...


def enqueue(connection: Connection, task: Wanted, payload: Payload | None = None, /, **options: Unpack[Options]) -> str:
    """Enqueue a task with the open transaction of a psycopg connection; returns its id.

    `task` is a payload such as `SendEmail(...)`, or a type, with its payload beside it. It is checked against its model
    here where that is known, and by the database, whose errors name what is wrong: either way the transaction fails.
    Raises `pydantic.ValidationError`, `ValueError`, `TypeError`, `KeyRefused` and the errors of the driver.
    """
    result = connection.execute(*_statement(task, payload, options))
    if iscoroutine(result):
        result.close()
        raise TypeError("this connection is asynchronous: await asyncproc.enqueue_async(...)")
    return _id(_rows(result, connection).fetchone())


async def enqueue_async(
    connection: Connection, task: Wanted, payload: Payload | None = None, /, **options: Unpack[Options]
) -> str:
    """The same with an asynchronous connection."""
    result = await connection.execute(*_statement(task, payload, options))
    return _id(await _rows(result, connection).fetchone())


def _rows(result: Any, connection: Any) -> Any:
    """A connection of psycopg answers with a cursor; a cursor of the DB-API is asked itself."""
    return result if hasattr(result, "fetchone") else connection


def _statement(task: Wanted, payload: Payload | None, options: Options) -> tuple[str, list[Any]]:
    """The call of the SQL function and its parameters."""
    if unknown := options.keys() - _CASTS:
        raise TypeError(f"{', '.join(sorted(unknown))} is no option: {', '.join(_CASTS)} are")
    name, body, model = _task(task, payload)
    if model is not None:
        keys = keys_of(model, options.get("concurrency_key"), options.get("fairness_key"))
        options = {**options, "concurrency_key": keys[0], "fairness_key": keys[1]}
    check_options(options.get("queue"), options.get("priority"))
    if depends_on := options.get("depends_on"):
        parent_ids(depends_on, options.get("on_parent_failure") or OnParentFailure.FAIL, MAX_PARENTS)
        options = {**options, "depends_on": list(depends_on)}
    given = {option: _checked(option, value) for option, value in options.items() if value is not None}
    arguments = ", ".join(["%s::text", "%s::json", *(f"{option} => %s::{_CASTS[option]}" for option in given)])
    return f"SELECT asyncproc.enqueue({arguments})", [name, body, *given.values()]


def _task(task: Wanted, payload: Payload | None) -> tuple[str, str, Processable | None]:
    """Name, payload, and that payload as the worker will see it where its type is known here.

    Raises `pydantic.ValidationError` and `TypeError`.
    """
    if isinstance(task, Processable):
        if payload is not None:
            raise TypeError(f"{type(task).__name__}(...) is its own payload: there is another one beside it")
        body = task.model_dump_json(by_alias=True)
        model = type(task)
    elif isinstance(task, str):
        return task, to_json({} if payload is None else payload).decode(), None
    else:
        model = _model(task)
        body = to_json({} if payload is None else payload).decode()
    return model.task_options.name, body, model.model_validate_json(body)


def _model(task: type[Processable] | Callable[..., Any]) -> type[Processable]:
    found = task if isinstance(task, type) else getattr(task, "processable", None)
    if isinstance(found, type) and issubclass(found, Processable):
        return found
    raise TypeError(f"{task!r:.200} is no task: name a payload, a Processable, a function under @task, or a name")


def _checked(name: str, value: Any) -> Any:
    if name == "resources":
        shape_text(value)
        return to_json(value).decode()
    kind = _CASTS[name]
    if kind == "interval" and not isinstance(value, timedelta):
        return timedelta(seconds=value)
    if kind == "timestamptz" and value.tzinfo is None:
        raise ValueError(f"{name} is {value}: it must say its time zone")
    return value


def _id(row: Mapping[str, Any] | Sequence[Any] | Any) -> str:
    """Whatever the connection makes of rows."""
    if isinstance(row, Mapping):
        return str(next(iter(row.values())))
    return str(row[0] if isinstance(row, Sequence) else row)
