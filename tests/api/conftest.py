"""One system behind the REST API for all tests here, with limits small enough to be reached."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from asyncproc.config import Settings
from asyncproc.core.states import FINAL
from tests.deployed import Ledger, System, remove_actors, settings_of
from tests.eventually import eventually

MAX_TASKS: Final = 100
MAX_TASK_BYTES: Final = 8 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
IDLE_QUEUE: Final = "idle"
"""No worker serves it: what is in there waits."""

_creators = count()


@dataclass(frozen=True, slots=True)
class Api:
    """What a client sees; `system` is for looking behind it."""

    http: httpx.Client
    system: System
    url: str

    def enqueue(self, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
        response = self.http.post("/tasks/enqueue", json={"tasks": list(tasks)})
        assert response.status_code == 200, response.text
        return list(response.json()["tasks"])

    def task(self, task_id: str) -> dict[str, Any]:
        response = self.http.get(f"/task/{task_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def ended(self, task_id: str) -> dict[str, Any]:
        """The task in its final state."""
        return eventually(lambda: task if (task := self.task(task_id))["status"] in FINAL else None)

    def listed(self, **query: str | int) -> list[dict[str, Any]]:
        response = self.http.get("/tasks", params=query)
        assert response.status_code == 200, response.text
        return list(response.json()["tasks"])

    def is_healthy(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def served(serve_url: str, settings: Settings, start_dir: Path) -> Iterator[Api]:
    """The whole system behind HTTP, healthy; nothing of it is left afterwards."""
    # Only here: conftest files are loaded before the filter that lets Serve's import pass is in force.
    from ray import serve

    from asyncproc.serving import application

    namespace = settings.ray.namespace
    # Below a path of its own: several stand side by side, in whatever order the tests run.
    serve.run(application(settings, start_dir), name=namespace, route_prefix=f"/{namespace}")
    url = f"{serve_url}/{namespace}"
    system = System(settings, start_dir)
    try:
        with httpx.Client(base_url=url, timeout=60) as http:
            api = Api(http, system, url)
            eventually(api.is_healthy)
            yield api
    finally:
        serve.delete(namespace)
        remove_actors(namespace)
        system.close()


@pytest.fixture(scope="package")
def api(serve_url: str, databases: Callable[[], AbstractContextManager[str]], start_dir: Path) -> Iterator[Api]:
    limits = {"maxTasks": MAX_TASKS, "maxTaskBytes": MAX_TASK_BYTES, "maxBodyBytes": MAX_BODY_BYTES}
    queue = {"maxTaskRetry": 3, "backOff": {"base": "10ms", "jitter": 0}}
    # Its next tick is due in 2027.
    schedules = {
        "configured": {"taskType": "CPUProcess", "payload": {"processType": "x"}, "every": "8000h", "queue": IDLE_QUEUE}
    }
    pools = {"nobody": {"queues": [IDLE_QUEUE], "workers": 0}}
    with (
        databases() as database,
        served(
            serve_url,
            settings_of(database, "api", api=limits, queue=queue, pools=pools, schedules=schedules),
            start_dir,
        ) as api,
    ):
        yield api


@pytest.fixture
def creator() -> str:
    """A `createdBy` that no other test uses."""
    return f"creator-{next(_creators)}"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")
