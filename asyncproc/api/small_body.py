"""Bodies of requests that change settings: small, and checked as a whole by their model."""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from asyncproc.api.admission import Room
from asyncproc.api.body import declared_size, problems_of, read, refuse

MAX_BYTES: Final = 256 * 1024

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
        raise refuse(list(problems_of(error.errors(include_url=False, include_input=False), of_tasks=False))) from None


def without_name(body: BaseModel, kind: type[M]) -> M:
    """The settings of something new, as they are stored under its name."""
    return kind.model_construct(
        body.model_fields_set - {"name"}, **{key: value for key, value in body if key != "name"}
    )
