"""Postgres out of reach or out of room: said at once and in full, and over as soon as it is back."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from asyncproc.clock import id_text
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from asyncproc.storage.cycle import Storage
from tests.api.conftest import Api, served
from tests.deployed import Ledger, settings_of
from tests.eventually import eventually
from tests.storage.table import ERROR, PAGE_BYTES, a_task, write


@pytest.fixture
def own(
    serve_url: str, databases: Callable[[], AbstractContextManager[str]], start_dir: Path, namespace: str
) -> Iterator[Api]:
    with databases() as database, served(serve_url, settings_of(database, namespace), start_dir) as api:
        yield api


def test_without_postgres_requests_are_refused_at_once_and_served_again_when_it_is_back(
    own: Api, postgres: str, ledger: Ledger
) -> None:
    def task(n: int) -> dict[str, Any]:
        return {"taskType": "Note", "payload": {"ledger": ledger.path, "n": n}}

    (before,) = own.enqueue(task(1))
    own.ended(before["id"])

    with _out_of_reach(postgres, own):
        unhealthy = eventually(lambda: _refused(own.http.get("/healthz")))
        answers = [
            own.http.post("/tasks/enqueue", json={"tasks": [task(2)]}, timeout=5),
            own.http.post("/tasks/enqueue", json={"tasks": [task(3)]}, timeout=5),
            own.http.get(f"/task/{before['id']}", timeout=5),
            own.http.post(f"/task/{before['id']}/retry", timeout=5),
            own.http.get("/tasks", timeout=5),
        ]
    eventually(own.is_healthy)
    (after,) = own.enqueue(task(4))

    assert unhealthy.json()["status"] == "unhealthy"
    assert "Postgres" in unhealthy.json()["error"]
    for answer in [unhealthy, *answers]:
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"] == "1"
        assert "Postgres" in answer.json()["error"]
    assert own.ended(after["id"])["status"] == "succeeded"
    runs = ledger.runs()
    # What became of the first refused one was unknown when that was said; the next one was never taken.
    assert runs - Counter([2]) == {1: 1, 4: 1}
    assert len(own.listed()) == runs.total()


def test_with_a_disk_nearly_full_new_tasks_are_refused_and_all_others_go_on(
    serve_url: str,
    databases: Callable[[], AbstractContextManager[str]],
    start_dir: Path,
    namespace: str,
    ledger: Ledger,
) -> None:
    note = {"ledger": ledger.path, "n": 1}
    more_than_any_disk_has = 1 << 62
    with databases() as database:
        failed, waiting = asyncio.run(_left_by_a_reign_before(database, json.dumps(note).encode()))
        settings = settings_of(database, namespace, storage={"minFreeBytes": more_than_any_disk_has})
        with served(serve_url, settings, start_dir) as api:
            health = eventually(lambda: _degraded(api.http.get("/healthz")))
            refused = api.http.post("/tasks/enqueue", json={"tasks": [{"taskType": "Note", "payload": note}]})
            retried = api.http.post(f"/task/{id_text(failed)}/retry")

            assert "nearly full" in health.json()["error"]
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
            assert "storage.minFreeBytes" in refused.json()["error"]
            assert retried.status_code == 200
            for task_id in (failed, waiting):
                assert api.ended(id_text(task_id))["status"] == "succeeded"
            assert len(api.listed()) == 2


async def _left_by_a_reign_before(database: str, payload: bytes) -> tuple[TaskId, TaskId]:
    """One failed task and one that waits."""
    storage = Storage(database, PAGE_BYTES)
    await storage.take_over()
    failed = a_task(State.RUNNING, type="Note", queue="default", payload=payload)
    waiting = a_task(type="Note", queue="default", payload=payload)
    await write(storage, inserts=[failed, waiting])
    await write(storage, failed=[(failed.id, 1, "Boom", ERROR)])
    await storage.close()
    return failed.id, waiting.id


def _degraded(response: httpx.Response) -> httpx.Response | None:
    return response if (response.status_code, response.json()["status"]) == (200, "degraded") else None


def _refused(response: httpx.Response) -> httpx.Response | None:
    return response if response.status_code == 503 else None


@contextmanager
def _out_of_reach(postgres: str, api: Api) -> Iterator[None]:
    """The database of this system takes no connections, and those it had are cut."""
    name = str(conninfo_to_dict(api.system.deployment.conninfo)["dbname"])
    with psycopg.connect(postgres, autocommit=True) as connection:

        def allow(word: bool) -> None:
            text = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(name), sql.Literal(word))
            connection.execute(text)

        allow(False)
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            allow(True)
