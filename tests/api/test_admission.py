"""More than can be served, before a QueueActor or a Postgres that does not answer: who is over a limit is told so, and
whoever looks, or asks how things are, is answered meanwhile."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from tests.api.conftest import Api, served
from tests.deployed import Ledger, pid_of, settings_of
from tests.eventually import eventually, eventually_async

MAX_ENQUEUES: Final = 3
FLOOD: Final = 50
QUICKLY_S: Final = 10.0
"""Much shorter than what those wait who are let in."""


@pytest.fixture(scope="module")
def narrow(serve_url: str, databases: Callable[[], AbstractContextManager[str]], start_dir: Path) -> Iterator[Api]:
    limits = {"maxEnqueues": MAX_ENQUEUES, "enqueueTimeout": "60s"}
    with databases() as database, served(serve_url, settings_of(database, "narrow", api=limits), start_dir) as api:
        yield api


@pytest.fixture
def hasty(serve_url: str, databases: Callable[[], AbstractContextManager[str]], start_dir: Path) -> Iterator[Api]:
    limits = {"maxEnqueues": MAX_ENQUEUES, "enqueueTimeout": "6s"}
    with databases() as database, served(serve_url, settings_of(database, "hasty", api=limits), start_dir) as api:
        yield api


def note(ledger: Ledger, n: int) -> dict[str, Any]:
    return {"tasks": [{"taskType": "Note", "payload": {"ledger": ledger.path, "n": n}}]}


async def test_before_a_queue_actor_that_does_not_answer_a_flood_is_refused_and_reads_are_served(
    narrow: Api, ledger: Ledger
) -> None:
    (known,) = narrow.enqueue(*note(ledger, 0)["tasks"])
    async with _client(narrow) as http:
        with _stopped(narrow):
            let_in = await _fill(http, ledger)
            refused, seen, listed, health = await _flood(http, ledger, known["id"])
        answers = await asyncio.gather(*let_in.values())

    _are_refusals(refused)
    assert {answer.status_code for answer in (*seen, *listed)} == {200}
    assert {answer.status_code for answer in health} == {503}
    assert "QueueActor" in health[0].json()["error"]
    assert [answer.status_code for answer in answers] == [200] * MAX_ENQUEUES
    eventually(lambda: ledger.runs() == dict.fromkeys((0, *let_in), 1))
    eventually(narrow.is_healthy)


async def test_before_a_postgres_that_does_not_commit_a_flood_is_refused_and_reads_are_served(
    narrow: Api, ledger: Ledger
) -> None:
    (known,) = narrow.enqueue(*note(ledger, 0)["tasks"])
    narrow.ended(known["id"])
    async with _client(narrow) as http:
        with psycopg.connect(narrow.system.deployment.conninfo) as somebody:
            somebody.execute("LOCK TABLE asyncproc.task_live IN SHARE MODE")
            let_in = [asyncio.create_task(http.post("/tasks/enqueue", json=note(ledger, 1)))]
            await eventually_async(lambda: _away(http))
            refused, seen, listed, health = await _flood(http, ledger, known["id"])
        await asyncio.gather(*let_in)

    _are_refusals(refused)
    assert {answer.status_code for answer in (*seen, *listed)} == {200}
    assert {answer.status_code for answer in health} <= {200, 503}
    eventually(narrow.is_healthy)
    narrow.ended(narrow.enqueue(*note(ledger, 2)["tasks"])[0]["id"])


async def test_the_room_of_clients_that_went_away_is_free_in_time_and_what_they_sent_is_settled_by_its_key(
    hasty: Api, ledger: Ledger
) -> None:
    async with _client(hasty) as http:
        with _stopped(hasty):
            gone = await _fill(http, ledger)
            for call in gone.values():
                call.cancel()
            await asyncio.wait(gone.values())
            # The QueueActor is still silent: there is room for this one once the time of the others is over.
            others = await eventually_async(lambda: _let_in(http, ledger))
        assert (await others).status_code == 200
        again = [await _post(http, ledger, n, _key(ledger, n)) for n in gone]

    assert [answer.status_code for answer in again] == [200] * MAX_ENQUEUES
    for answer in again:
        hasty.ended(answer.json()["tasks"][0]["id"])
    assert {n: ledger.runs()[n] for n in gone} == dict.fromkeys(gone, 1)


def _key(ledger: Ledger, n: int) -> dict[str, str]:
    return {"Idempotency-Key": f"{Path(ledger.path).parent.name}-{n}"}


async def _fill(http: httpx.AsyncClient, ledger: Ledger) -> "dict[int, asyncio.Task[httpx.Response]]":
    """As many requests as are let in, none of them answered, by their numbers."""
    calls = {n: asyncio.create_task(_post(http, ledger, n, _key(ledger, n))) for n in range(1, MAX_ENQUEUES + 3)}

    async def all_others_are_refused() -> bool:
        return sum(call.done() for call in calls.values()) == len(calls) - MAX_ENQUEUES

    await eventually_async(all_others_are_refused)
    assert {call.result().status_code for call in calls.values() if call.done()} == {429}
    return {n: call for n, call in calls.items() if not call.done()}


async def _let_in(http: httpx.AsyncClient, ledger: Ledger) -> "asyncio.Task[httpx.Response] | None":
    """A request that is not refused at once."""
    call = asyncio.create_task(_post(http, ledger, 99, {}))
    await asyncio.wait([call], timeout=QUICKLY_S / 5)
    return None if call.done() else call


async def _post(http: httpx.AsyncClient, ledger: Ledger, n: int, headers: dict[str, str]) -> httpx.Response:
    return await http.post("/tasks/enqueue", json=note(ledger, n), headers=headers, timeout=120)


async def _flood(http: httpx.AsyncClient, ledger: Ledger, known: str) -> list[list[httpx.Response]]:
    """Everything at once: enqueues, reads, lists, health."""

    async def all_of(make: Callable[[], Any], number: int) -> list[httpx.Response]:
        return list(await asyncio.gather(*(make() for _ in range(number))))

    return list(
        await asyncio.gather(
            all_of(lambda: http.post("/tasks/enqueue", json=note(ledger, 98), timeout=QUICKLY_S), FLOOD),
            all_of(lambda: http.get(f"/task/{known}", timeout=QUICKLY_S), 5),
            all_of(lambda: http.get("/tasks", timeout=QUICKLY_S), 5),
            all_of(lambda: http.get("/healthz", timeout=QUICKLY_S), 5),
        )
    )


async def _away(http: httpx.AsyncClient) -> bool:
    return (await http.get("/healthz", timeout=QUICKLY_S)).status_code == 503


def _are_refusals(answers: list[httpx.Response]) -> None:
    for answer in answers:
        assert answer.status_code in {429, 503}, answer.text
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["error"]


@asynccontextmanager
async def _client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=api.url, timeout=60, limits=limits) as http:
        yield http


@contextmanager
def _stopped(api: Api) -> Iterator[None]:
    """The QueueActor hangs: it is there, and does nothing."""
    pid = pid_of(api.system.queue())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
