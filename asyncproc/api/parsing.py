"""Small bodies and queries to models; or to what is wrong with them, by field and with what is allowed."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar, get_args

from fastapi import Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from asyncproc.api.admission import Room
from asyncproc.api.body import BodyRefused, declared_size, read, refuse
from asyncproc.clock import wall_now
from asyncproc.core.task import MAX_DELAY_S
from asyncproc.wire import Problem

MAX_BYTES: Final = 256 * 1024
MAX_VALUES: Final = 1_000
"""Values of one field of a filter."""


class Asked(BaseModel):
    """What a client asks for: names that are not known are refused, not passed over."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


M = TypeVar("M", bound=Asked)


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("contains NUL, which Postgres cannot store")
    return text


def _as_list(value: object) -> object:
    return value if value is None or isinstance(value, list) else [value]


def _aware(value: object) -> object:
    """Without a zone it is UTC."""
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be an instant such as 2026-11-25T09:00:00Z") from None
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return value


def _soon(instant: datetime) -> datetime:
    if instant.timestamp() > wall_now() + MAX_DELAY_S:
        raise ValueError(f"must be within {MAX_DELAY_S / 86_400:.0f} days from now")
    return instant


Text = Annotated[str, AfterValidator(_without_nul), Field(max_length=200)]
Instant = Annotated[AwareDatetime, BeforeValidator(_aware)]
SoonInstant = Annotated[Instant, AfterValidator(_soon)]
Listed = BeforeValidator(_as_list)
"""A single value stands for a list of one."""


async def body_of(request: Request, model: type[M], room: Room) -> M:
    """Raises `BodyRefused` and `TooManyRequests`."""
    with room.hold(declared_size(request, MAX_BYTES)) as held:
        text = await read(request, MAX_BYTES, held)
    try:
        return model.model_validate_json(text or b"{}")
    except ValidationError as error:
        raise refuse(list(_problems(model, error.errors(include_url=False, include_input=False)))) from None


def query_of(request: Request, model: type[M]) -> M:
    """Each name may be given several times. Raises `BodyRefused`."""
    asked: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        asked.setdefault(name, []).append(value)
    single = {name: values[0] if len(values) == 1 else values for name, values in asked.items()}
    try:
        return model.model_validate(single)
    except ValidationError as error:
        raise refuse(list(_problems(model, error.errors(include_url=False, include_input=False)))) from None


def parameters_of(model: type[Asked]) -> list[dict[str, Any]]:
    """The fields of a query for OpenAPI."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return [
        {"name": name, "in": "query", "required": False, "schema": field}
        for name, field in schema["properties"].items()
    ]


def body_reference(model: type[Asked]) -> dict[str, Any]:
    """For OpenAPI: a body that is parsed here and not by FastAPI."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def wrong(field: str, message: str, status: int = 400) -> BodyRefused:
    return refuse([Problem(index=None, field=field, message=message)], status)


def _problems(model: type[Asked], errors: Iterable[ErrorDetails]) -> Iterator[Problem]:
    for error in errors:
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = f"is not known: {allowed(model, error['loc'])}"
        elif error["type"] == "json_invalid":
            message = f"the body is not JSON: {error['ctx']['error']}"
        # Of a list the field is named, and not the place: a single value need not have been in a list.
        path = ".".join(part for part in error["loc"] if isinstance(part, str))
        yield Problem(index=None, field=path[:300], message=message)


def allowed(model: type[BaseModel], path: tuple[int | str, ...]) -> str:
    """Of what is not known at the end of a path: the names that are."""
    for part in path[:-1]:
        for info in model.model_fields.values():
            kinds = [info.annotation, *get_args(info.annotation)] if info.alias == part else ()
            model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return "allowed are " + ", ".join(info.alias or name for name, info in model.model_fields.items())
