"""The REST API as a FastAPI application: what each endpoint takes, answers, and says when it cannot."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from asyncproc.api import (
    changes,
    dead_letters,
    events,
    explain,
    health,
    lists,
    operations,
    pool_bodies,
    pools,
    queue_bodies,
    queues,
    rates,
    schedule_bodies,
    schedules,
    tasks,
    types,
)
from asyncproc.api.body import BodyRefused, refuse
from asyncproc.api.door import Door
from asyncproc.api.unique import conflicts_of
from asyncproc.errors import (
    AsyncprocError,
    DiskNearlyFull,
    KeyReused,
    NotCancellable,
    Overloaded,
    QueueDraining,
    QueueFull,
    QueueUnavailable,
    SettingsRefused,
    StorageUnavailable,
    TasksRejected,
    TooManyOperations,
    TooManyRequests,
    TooSlow,
    UniqueConflict,
)
from asyncproc.wire import CancelBody, EnqueueBody, Problem

log = logging.getLogger(__name__)

OpenDoor = Callable[[], Awaitable[Door]]

_STATUS: Final[dict[type[AsyncprocError], int]] = {
    StorageUnavailable: 503,
    QueueUnavailable: 503,
    Overloaded: 503,
    TooSlow: 503,
    DiskNearlyFull: 503,
    TasksRejected: 400,
    KeyReused: 422,
    QueueDraining: 409,
    QueueFull: 429,
    NotCancellable: 409,
    UniqueConflict: 409,
    TooManyRequests: 429,
    TooManyOperations: 429,
}
_PARSED: Final[tuple[type[BaseModel], ...]] = (
    EnqueueBody, CancelBody, changes.ChangeBody, operations.BulkBody, dead_letters.RedriveBody,
    dead_letters.DiscardBody, *queue_bodies.PARSED, *schedule_bodies.PARSED, *pool_bodies.PARSED,
)  # fmt: skip
_SETTINGS_STATUS: Final = {"invalid": 400, "missing": 404, "busy": 429}
RETRY_AFTER_S: Final = 1
_FIELD: Final = re.compile(r"([A-Za-z]+(?:\.[^:\s]+)?): ")
"""With which the text of a refusal begins that is of a field."""
DISK_RETRY_AFTER_S: Final = 30
"""Somebody has to make room first."""


def build(open_door: OpenDoor) -> FastAPI:
    """`open_door` is awaited once, when the application starts."""
    app = FastAPIOffline(
        title="asyncproc",
        version=version("asyncproc"),
        summary="Background tasks for Python on Ray, kept in Postgres",
        lifespan=_lifespan(open_door),
    )
    app.include_router(health.router)
    for subject in (
        tasks, lists, changes, explain, operations, dead_letters, queues, types, rates, pools, schedules, events,
    ):  # fmt: skip
        app.include_router(subject.router)
    app.add_exception_handler(BodyRefused, _refused)
    app.add_exception_handler(AsyncprocError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    _describe_bodies(app)
    return app


def _describe_bodies(app: FastAPI) -> None:
    """Bodies that are parsed here and not by FastAPI, put among the schemas that its OpenAPI refers to."""
    parsed: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _PARSED]
    _, schema = models_json_schema(parsed, ref_template="#/components/schemas/{model}")
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        document["components"]["schemas"].update(schema["$defs"])
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            # The framework's own answer to what is invalid, for which this API says 400.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        document["components"]["schemas"].pop("HTTPValidationError", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def _lifespan(open_door: OpenDoor) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        door = await open_door()
        app.state.door = door
        yield
        await door.close()

    return lifespan


def error_answer(status: int, message: str, problems: list[Problem] | None = None) -> Response:
    body: dict[str, object] = {"error": message}
    if problems:
        body["errors"] = [problem.model_dump() for problem in problems]
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else None
    return Response(to_json(body), status, headers, "application/json")


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, BodyRefused):
        raise error
    return error_answer(error.status, error.message, error.problems)


async def _failed(_: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    if isinstance(error, SettingsRefused):
        status = _SETTINGS_STATUS.get(error.kind, 409)
    if status == 500:
        log.error("request failed: %s", error, exc_info=error)
    problems = conflicts_of(error) if isinstance(error, UniqueConflict) else None
    if isinstance(error, SettingsRefused) and error.kind == "invalid" and (field := _FIELD.match(error.problem)):
        problems = [Problem(index=None, field=field[1], message=error.problem[field.end() :])]
    if isinstance(error, QueueFull):
        problems = [Problem(index=error.index, field="queue", message=str(error))]
    answer = error_answer(status, str(error), problems)
    if isinstance(error, DiskNearlyFull):
        answer.headers["Retry-After"] = str(DISK_RETRY_AFTER_S)
    return answer


async def _invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    problems = [
        Problem(index=None, field=".".join(str(part) for part in item["loc"][1:]), message=str(item["msg"]))
        for item in error.errors()
    ]
    return await _refused(_, refuse(problems))


async def _http(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    answer = error_answer(error.status_code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer
