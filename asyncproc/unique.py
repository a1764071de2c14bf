"""What makes a task the only one of its kind, as a request or a task type says it."""

import json
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from asyncproc.core.duration import format_duration, parse_duration
from asyncproc.core.states import State
from asyncproc.core.task import MAX_DELAY_S, MAX_KEY
from asyncproc.core.unique import NOT_ENDED, WAITING, OnConflict, Wish

MAX_FIELDS: Final = 32
_DIGITS: Final = 40
"""Of the hash that stands for the values of a payload: 160 bits."""

States: TypeAlias = Literal[
    "blocked", "scheduled", "queued", "retrying", "running", "succeeded", "failed", "cancelled", "waiting", "unfinished"
]
_GROUPS: Final[Mapping[str, tuple[State, ...]]] = {"waiting": WAITING, "unfinished": NOT_ENDED}


def _period(text: str) -> str:
    if not 0 < parse_duration(text) <= MAX_DELAY_S:
        raise ValueError(f"must be more than 0s and at most {format_duration(MAX_DELAY_S)}")
    return text


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("contains NUL, which Postgres cannot store")
    return text


class Unique(BaseModel):
    """The task is made only where no other of its type with the same key counts: that is, is in one of `states` and,
    where `period` is given, was enqueued within it. The key is `key`, or the values of `fields` of the payload, or
    without both the whole payload."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"key": "invoice-4711", "onConflict": "return"},
                {"fields": ["account.id"], "states": "waiting", "onConflict": "return"},
                {"period": "1h", "onConflict": "reject"},
            ]
        },
    )

    key: Annotated[str, AfterValidator(_without_nul)] | None = Field(default=None, min_length=1, max_length=MAX_KEY)
    fields: tuple[Annotated[str, Field(min_length=1, max_length=MAX_KEY)], ...] | None = Field(
        default=None, min_length=1, max_length=MAX_FIELDS
    )
    """Of the payload as its model has it, defaults included; `a.b` is the field `b` of the object `a`."""
    states: Annotated[
        tuple[States, ...], BeforeValidator(lambda asked: [asked] if isinstance(asked, str) else asked)
    ] = Field(default=(), max_length=20)
    """States in which another counts. `unfinished` stands for all that are not final, and is what counts where nothing
    is said; with a `period`, `succeeded` counts then too. `waiting` stands for the same without `running`: so one may
    run and one wait."""
    period: (
        Annotated[
            str,
            BeforeValidator(
                lambda given: format_duration(given.total_seconds()) if isinstance(given, timedelta) else given
            ),
            AfterValidator(_period),
        ]
        | None
    ) = Field(default=None, max_length=64)
    """Others count for so long from their enqueueing on; without it for as long as they are kept."""
    on_conflict: OnConflict = OnConflict.RETURN
    """`return`: the answer names the other in place of the task, with `existing`. `reject`: nothing of the request is
    enqueued, and 409 names the other. `replace`: where the other waits it gets all that this task has but its id, and
    is answered with `replaced` too; else it is as with `return`."""

    @model_validator(mode="after")
    def _one_of(self) -> "Unique":
        if self.key is not None and self.fields is not None:
            raise ValueError("key and fields cannot both be given")
        if "states" in self.model_fields_set and not self.states:
            raise ValueError("states: at least one must be given")
        return self

    def wish(self) -> Wish:
        states: dict[State, None] = {}
        for name in self.states or (("unfinished", "succeeded") if self.period else ("unfinished",)):
            states.update(dict.fromkeys(_GROUPS[name] if name in _GROUPS else (State(name),)))
        return Wish(tuple(states), parse_duration(self.period) if self.period else 0.0, self.on_conflict)

    def key_of(self, payload: Mapping[str, Any]) -> str:
        """The key of a task where it is made of its payload, of bounded length. Raises `ValueError`."""
        if self.fields is None:
            return f"payload:{_hash(payload)}"
        return f"fields:{_hash([_found(payload, path) for path in sorted(self.fields)])}"


NOT_UNIQUE: Final = Unique()
"""Told from others by its identity."""


def _or_not(given: object) -> object:
    return NOT_UNIQUE if given is False else given


AskedUnique = Annotated[
    Unique | None,
    BeforeValidator(_or_not),
    Field(json_schema_extra=lambda schema: schema["anyOf"].append({"const": False, "type": "boolean"})),
]
"""None leaves it to the type, `NOT_UNIQUE` does not."""


def _found(payload: Mapping[str, Any], path: str) -> tuple[str, Any]:
    """The path as the payload spells it, and the value: null where an object on the way is. Raises `ValueError`."""
    value: Any = payload
    names: list[str] = []
    for name in path.split("."):
        if value is None:
            break
        if not isinstance(value, Mapping):
            raise ValueError(f"the payload has no {path}: what should have a {name} is no object")
        key = name if name in value else next((key for key in value if _plain(key) == _plain(name)), None)
        if key is None:
            raise ValueError(
                f"the payload has no {path}: instead of {name} there are {', '.join(map(str, value))[:300]}"
            )
        value = value[key]
        names.append(key)
    return ".".join(names), value


def _plain(name: str) -> str:
    """What `accountId` and `account_id` have in common."""
    return name.replace("_", "").casefold()


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:_DIGITS]
