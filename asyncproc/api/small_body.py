"""Bodies of requests that change settings: small, and checked as a whole by their model."""

import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from asyncproc.api.admission import Room
from asyncproc.api.body import declared_size, problems_of, read, refuse
from asyncproc.api.parsing import allowed
from asyncproc.wire import Problem

MAX_BYTES: Final = 256 * 1024
_OF_A_UNION: Final = re.compile(r"constrained-\w+|function-\w+\[.*")
"""What pydantic puts into the path of an error for each of several kinds that a value may be."""

M = TypeVar("M", bound=BaseModel)


def described(kind: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """For OpenAPI. The model must be among those that the application describes."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


async def parse(request: Request, kind: type[M], room: Room) -> M:
    """An absent body is an empty object. Raises `BodyRefused` and `TooManyRequests`."""
    size = declared_size(request, MAX_BYTES)
    with room.hold(size) as held:
        body = await read(request, MAX_BYTES, held)
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise refuse(list(_problems(kind, error.errors(include_url=False, include_input=False)))) from None


def _problems(kind: type[BaseModel], errors: list[ErrorDetails]) -> Iterator[Problem]:
    for error in errors:
        error["loc"] = tuple(part for part in error["loc"] if not _OF_A_UNION.fullmatch(str(part)))
    for error, problem in zip(errors, problems_of(errors, of_tasks=False), strict=True):
        if error["type"] == "extra_forbidden":
            problem.message = f"is not known: {allowed(kind, error['loc'])}"
        name, colon, rest = problem.message.partition(": ")
        # A rule about several fields begins with the one that it is said of.
        if not problem.field and colon and any(name == info.alias for info in kind.model_fields.values()):
            problem.field, problem.message = name, rest
        yield problem


def without_name(body: BaseModel, kind: type[M]) -> M:
    """The settings of something new, as they are stored under its name."""
    return kind.model_construct(
        body.model_fields_set - {"name"}, **{key: value for key, value in body if key != "name"}
    )
