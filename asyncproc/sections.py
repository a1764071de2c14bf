"""What the sections of the configuration are made of."""

from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from asyncproc.core.duration import format_duration, parse_duration
from asyncproc.core.rank import STRICT_AGING_S
from asyncproc.core.retry import MAX_BACKOFF_S
from asyncproc.core.shape import MAX_CUSTOM, shape_text
from asyncproc.core.task import QUEUE_NAME

DAY_S: Final = 86_400.0
KEPT_FOR_EVER_S: Final = 100 * 365 * DAY_S
"""What `off` means for retention: longer than anybody keeps anything."""


def seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _aging(value: object) -> object:
    # YAML reads a bare `off` as false.
    return STRICT_AGING_S if value is False or value == "off" else seconds(value)


def _resources(value: dict[str, Any]) -> dict[str, Any]:
    shape_text(value)
    return value


def _kept(value: object) -> object:
    if value is False or value == "off":
        return KEPT_FOR_EVER_S
    if isinstance(value, str) and value.endswith("d") and value[:-1].isdecimal():
        return int(value[:-1]) * DAY_S
    try:
        return seconds(value)
    except ValueError:
        raise ValueError("must be a duration such as 7d or 36h, or off") from None


def kept_text(kept_s: float) -> str:
    return "off" if kept_s == KEPT_FOR_EVER_S else format_duration(kept_s)


def aging_text(aging_s: float) -> str:
    return "off" if aging_s == STRICT_AGING_S else format_duration(aging_s)


def duration_schema(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": "A duration in Go's syntax", "examples": [example]})


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    Field(gt=0, le=MAX_BACKOFF_S, allow_inf_nan=False),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    duration_schema("30s"),
]
AgingSeconds = Annotated[
    float, BeforeValidator(_aging), Field(gt=0, le=STRICT_AGING_S, allow_inf_nan=False), duration_schema("1m")
]
KeptSeconds = Annotated[float, BeforeValidator(_kept), Field(ge=3600, le=KEPT_FOR_EVER_S, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=QUEUE_NAME)]
Resources = Annotated[
    dict[Annotated[str, Field(max_length=100)], StrictInt | StrictFloat | StrictStr],
    AfterValidator(_resources),
    Field(max_length=MAX_CUSTOM + 3, examples=[{"num_gpus": 0.5, "memory": "2GiB"}]),
]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_default=True, use_attribute_docstrings=True
    )


class BackOffSettings(Section):
    """How long a failed attempt waits; a task's own `backOffDuration` makes it constant instead."""

    base: Seconds = 1.0
    factor: float = Field(default=2.0, ge=1, le=100)
    cap: Seconds = 3600.0
    jitter: float = Field(default=0.1, ge=0, le=1)
    """Waits are spread by up to this part of themselves."""
