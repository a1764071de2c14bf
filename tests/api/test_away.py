"""Postgres out of reach: said at once and in full, and over as soon as it is back."""

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

from tests.api.conftest import Api, served
from tests.deployed import Ledger, settings_of
from tests.eventually import eventually


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
