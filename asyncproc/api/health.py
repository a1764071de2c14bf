"""Whether the whole of it works, not just the process that answers."""

import asyncio
from typing import Final

from fastapi import APIRouter, Response
from pydantic_core import to_json

from asyncproc.api.door import TheDoor
from asyncproc.errors import QueueUnavailable, StorageUnavailable
from asyncproc.wire import ErrorBody, HealthBody

router = APIRouter(tags=["health"])

TIMEOUT_S: Final = 2.0


@router.get("/healthz", response_model=HealthBody, responses={429: {"model": ErrorBody}, 503: {"model": HealthBody}})
async def healthz(door: TheDoor) -> Response:
    """200 when QueueActor, a worker and Postgres answer, else 503 naming which does not.

    `degraded` is a 200 still: no new tasks are taken, and all else goes on. `warnings` names pools whose workers
    cannot start. A worker is missed only where one is wanted: pools may be scaled down to none.
    """
    with door.admission.health.hold():
        queue, postgres = await asyncio.gather(_ask_queue(door), _ask_postgres(door))
    storage_ok, storage, workers, queue_actor, shortage, unknown_types, wants_workers, warnings = queue
    # Two looks at Postgres: the replica may reach it where the QueueActor does not, and the other way round.
    if postgres == "ok" and storage_ok is False:
        postgres = f"the QueueActor says: {storage}"
    body = HealthBody(
        status="healthy",
        queue_actor=queue_actor,
        workers=f"{workers} answer" if workers != 1 else "1 answers",
        postgres=postgres,
        unknown_types=list(unknown_types) or None,
        warnings=list(warnings) or None,
    )
    wrong = {
        "QueueActor": "" if queue_actor == "ok" else queue_actor,
        "workers": "" if workers or not wants_workers else "no worker answers",
        "Postgres": "" if postgres == "ok" else postgres,
    }
    problems = [f"{name}: {cause}" for name, cause in wrong.items() if cause]
    if problems:
        body = body.model_copy(update={"status": "unhealthy", "error": "; ".join(problems)})
    elif shortage:
        body = body.model_copy(update={"status": "degraded", "error": shortage})
    headers = {"Retry-After": "1"} if problems else None
    text = to_json(body, by_alias=True, exclude_none=True)
    return Response(text, 503 if problems else 200, headers, "application/json")


async def _ask_queue(
    door: TheDoor,
) -> tuple[bool | None, str, int, str, str, tuple[str, ...], bool, tuple[str, ...]]:
    try:
        health = await door.gateway.health(TIMEOUT_S)
    except QueueUnavailable as error:
        return None, "", 0, error.cause, "", (), True, ()
    return (
        health.storage_ok,
        health.storage,
        health.workers,
        "ok",
        health.shortage,
        health.unknown_types,
        health.wants_workers,
        health.warnings,
    )


async def _ask_postgres(door: TheDoor) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await door.inspector.ping()
    except StorageUnavailable as error:
        return error.cause
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    return "ok"
