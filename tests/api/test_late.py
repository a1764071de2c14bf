"""A replica whose requests to enqueue wait for long already, without a Ray."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from asyncproc.api.admission import Admission
from asyncproc.api.app import build
from asyncproc.api.door import Door
from asyncproc.config import Settings
from asyncproc.errors import AsyncprocError


class NotLookedAt(AsyncprocError):
    pass


@dataclass
class Stub:
    """Whatever of a replica the refusal of a request must not need."""

    waited: float = 0.0

    def waited_s(self) -> float:
        return self.waited

    async def known(self) -> None:
        raise NotLookedAt


@pytest.mark.parametrize(("waited_s", "status"), [(4.9, 500), (5.1, 503)])
async def test_one_more_is_refused_at_once_where_half_of_the_time_is_over(waited_s: float, status: int) -> None:
    settings = Settings.model_validate({"api": {"enqueueTimeout": "10s"}})
    gateway: Any = Stub(waited_s)
    other: Any = Stub()
    door = Door(
        gateway, other, other, settings, other, Admission(settings.api), stored=other, counting=other, watch=other,
        cancelling=other,
    )  # fmt: skip

    async def open_door() -> Door:
        return door

    app = build(open_door)
    app.state.door = door
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as http:
        answer = await http.post("/tasks/enqueue", content=b"not looked at")

    assert answer.status_code == status
    if status == 503:
        assert answer.headers["Retry-After"] == "1"
        assert "api.enqueueTimeout" in answer.json()["error"]
