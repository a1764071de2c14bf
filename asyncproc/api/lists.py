"""Lists of tasks, newest first, page by page."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import Field
from pydantic_core import to_json

from asyncproc.api.door import Door, TheDoor
from asyncproc.api.filters import FilterBody, refuse_unknown
from asyncproc.api.parsing import parameters_of, query_of, wrong
from asyncproc.api.tasks import ERRORS
from asyncproc.clock import id_text
from asyncproc.core.record import TaskFilter
from asyncproc.core.task import TaskId
from asyncproc.wire import ErrorBody, TaskList, view

router = APIRouter(tags=["tasks"])

MAX_PAGE: Final = 1_000
BAD: Final[dict[int | str, dict[str, Any]]] = {**ERRORS, 400: {"model": ErrorBody}}


class ListQuery(FilterBody):
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = Field(default=None, description="`next` of the page before")


@router.get("/tasks", response_model=TaskList, responses=BAD, openapi_extra={"parameters": parameters_of(ListQuery)})
async def list_tasks(request: Request, door: TheDoor) -> Response:
    """Tasks that match all that is asked for, newest first. A name that is given several times matches any of them."""
    asked = query_of(request, ListQuery)
    return await page_of(door, asked, asked.narrowed())


async def page_of(door: Door, asked: ListQuery, narrowed: TaskFilter) -> Response:
    before = None if asked.cursor is None else _cursor(asked.cursor)
    with door.admission.reads.hold():
        records = await door.inspector.tasks(narrowed, asked.limit + 1, before)
        if not records and before is None:
            await refuse_unknown(door, asked)
    page = records[: asked.limit]
    following = to_json(id_text(page[-1].id)) if len(records) > asked.limit else b"null"
    text = b'{"tasks":[' + b",".join(view(record, in_list=True) for record in page) + b'],"next":' + following + b"}"
    return Response(text, media_type="application/json")


def _cursor(text: str) -> TaskId:
    try:
        return UUID(text).bytes
    except ValueError:
        raise wrong("cursor", "must be `next` of an earlier page") from None
