"""What tasks are narrowed to: one grammar for lists, counts and operations."""

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import from_json, to_json

from asyncproc.api.door import Door
from asyncproc.api.parsing import MAX_VALUES, Asked, Instant, Listed, Text, wrong
from asyncproc.api.queues import named
from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.record import TaskFilter
from asyncproc.core.states import State
from asyncproc.storage import survey

_SEVERAL: Final = Field(min_length=1, max_length=MAX_VALUES)
_Texts = Annotated[Annotated[list[Text], _SEVERAL] | None, Listed]
_Priority = Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY)]
_Fingerprint = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
_SHOWN: Final = 20


def _parsed(value: object) -> object:
    """In a query it is text."""
    if isinstance(value, str):
        try:
            return from_json(value, allow_inf_nan=False)
        except ValueError as error:
            raise ValueError(f"is not JSON: {error}") from None
    return value


def _storable(part: dict[str, Any]) -> dict[str, Any]:
    if b"\\u0000" in to_json(part):
        raise ValueError("contains NUL, which Postgres cannot store")
    return part


_Part = Annotated[dict[str, Any], Field(min_length=1), BeforeValidator(_parsed), AfterValidator(_storable)]


class FilterBody(Asked):
    """All that is asked for must hold; of several values of one field any."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"state": ["failed"], "queue": "mail", "createdAfter": "2026-11-25T09:00:00Z"}]}
    )

    state: Annotated[Annotated[list[State], _SEVERAL] | None, Listed] = None
    type: _Texts = None
    queue: _Texts = None
    priority: Annotated[Annotated[list[_Priority], _SEVERAL] | None, Listed] = None
    created_by: _Texts = None
    created_after: Instant | None = None
    """From this instant on."""
    created_before: Instant | None = None
    """Before this instant."""
    fingerprint: Annotated[Annotated[list[_Fingerprint], _SEVERAL] | None, Listed] = None
    """Of the error of failed tasks, as `GET /dead-letters/groups` names it."""
    concurrency_key: _Texts = None
    fairness_key: _Texts = None
    id: Annotated[Annotated[list[UUID], _SEVERAL] | None, Listed] = None
    payload: _Part | None = None
    """What the payload contains: all these members, and of objects and lists in it at least what is said of them. Each
    payload that nothing else rules out is read for it."""

    def narrowed(self) -> TaskFilter:
        return TaskFilter(
            state=_some(self.state),
            type=_some(self.type),
            queue=_some(self.queue),
            priority=_some(self.priority),
            created_by=_some(self.created_by),
            created_after=None if self.created_after is None else self.created_after.timestamp(),
            created_before=None if self.created_before is None else self.created_before.timestamp(),
            fingerprint=_some(self.fingerprint),
            concurrency_key=_some(self.concurrency_key),
            fairness_key=_some(self.fairness_key),
            id=None if self.id is None else tuple(each.bytes for each in self.id),
            payload=None if self.payload is None else to_json(self.payload).decode(),
        )


def _some(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


async def refuse_unknown(door: Door, asked: FilterBody, under: str = "") -> None:
    """Where nothing was found: raises `BodyRefused` naming a queue or type of which nobody has heard."""
    named_queues = named(door, await door.stored.refresh()) if asked.queue else set()
    for queue in asked.queue or ():
        if queue not in named_queues and await survey.is_known(door.inspector, TaskFilter(queue=queue)) is False:
            known = sorted({*named_queues, *await survey.queues(door.inspector)})
            raise wrong(f"{under}queue", f"there is no queue {queue!r}: known are {_listed(known)}")
    for name in asked.type or ():
        types = door.registry.names()
        if name not in types and await survey.is_known(door.inspector, TaskFilter(type=name)) is False:
            raise wrong(f"{under}type", f"there is no task type {name!r}: known are {_listed(types)}")


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
