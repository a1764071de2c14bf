"""The `Idempotency-Key` header: a request that may be sent again until it is answered."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

from starlette.requests import Request

from asyncproc.actors.once import Keyed
from asyncproc.api.body import BodyRefused
from asyncproc.api.door import Door
from asyncproc.api.overflow import amended
from asyncproc.api.unique import Parsed
from asyncproc.clock import wall_now
from asyncproc.core.task import NewTask

HEADER: Final = "Idempotency-Key"
MAX_LENGTH: Final = 255
_LOWEST: Final = " "
_HIGHEST: Final = "~"
PARAMETER: Final[dict[str, Any]] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Names the request, in 1 to 255 printable ASCII characters. The same key with the same body gets"
    " the answer of the first such request for 24 hours (`retention.idempotencyKeys`), with another body 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": "^[ -~]+$"},
    "example": "order-4711",
}


def key_of(request: Request) -> str | None:
    """None where the request has none. Raises `BodyRefused`."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1:
        raise BodyRefused(400, f"{HEADER}: given {len(given)} times, it must be there once")
    (key,) = given
    if not 0 < len(key) <= MAX_LENGTH or not all(_LOWEST <= character <= _HIGHEST for character in key):
        raise BodyRefused(400, f"{HEADER}: must be 1 to {MAX_LENGTH} printable ASCII characters")
    return key


async def enqueue(
    key: str,
    body: bytes,
    door: Door,
    parse: Callable[[bytes, Door], Awaitable[Parsed]],
    answer: Callable[[list[NewTask]], bytes],
) -> bytes:
    """The answer to the first request with this key and body, which may be this one.

    Raises what the gateway does, and `BodyRefused`.
    """
    body_hash = sha256(body).digest()
    try:
        tasks, wishes = await parse(body, door)
    except BodyRefused:
        # It may have been good under an earlier configuration; what was answered then is still the answer.
        known = (await door.inspector.answers([(key, body_hash)], wall_now())).get(key)
        if known is None:
            raise
        return known
    given = await door.gateway.enqueue_once(Keyed(key, body_hash, answer(tasks), tasks, wishes))
    cancelling = door.cancelling.names(door.stored.current)
    return await amended(given, tasks, cancelling, door.inspector) if cancelling else given
