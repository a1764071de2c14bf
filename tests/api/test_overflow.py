"""Queues that say how many of their tasks may wait, over HTTP."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api

_numbers = count()
NOOP = {"taskType": "CPUProcess", "payload": {"processType": "x"}}


@pytest.fixture
def queue(api: Api) -> Iterator[str]:
    """A queue that no other test uses, and that is held up."""
    name = f"bounded{next(_numbers)}"
    api.http.post("/queues", json={"name": name}).raise_for_status()
    api.http.post(f"/queues/{name}/pause").raise_for_status()
    yield name
    api.http.post(f"/queues/{name}/purge")
    api.http.post(f"/queues/{name}/resume")


def bound(api: Api, queue: str, **settings: Any) -> None:
    answer = api.http.patch(f"/queues/{queue}", json=settings)
    assert answer.status_code == 200, answer.text


def statuses(api: Api, tasks: list[dict[str, Any]]) -> list[str]:
    return [api.task(task["id"])["status"] for task in tasks]


def test_many_who_enqueue_at_once_never_make_more_wait_than_may(api: Api, queue: str) -> None:
    bound(api, queue, maxWaiting=100)
    bodies = [{"tasks": [{**NOOP, "queue": queue}] * (number % 3 + 1)} for number in range(120)]
    keyed = [{"Idempotency-Key": f"{queue}-{number}"} if number % 4 == 0 else {} for number in range(120)]
    with httpx.Client(base_url=api.url, timeout=60) as http, ThreadPoolExecutor(24) as pool:
        answers = list(
            pool.map(
                lambda each: http.post("/tasks/enqueue", json=each[0], headers=each[1]), zip(bodies, keyed, strict=True)
            )
        )

    taken = sum(len(body["tasks"]) for body, answer in zip(bodies, answers, strict=True) if answer.is_success)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert taken == 100
    assert api.http.get(f"/queues/{queue}").json()["counts"] == {"queued": 100}


def test_a_refusal_names_queue_number_limit_and_task_and_leaves_nothing(api: Api, queue: str) -> None:
    bound(api, queue, maxWaiting=2)
    api.enqueue({**NOOP, "queue": queue, "delay": "1h"})
    tasks = [NOOP, {**NOOP, "queue": queue}, {**NOOP, "queue": queue}]
    for headers in ({}, {"Idempotency-Key": queue}):
        refused = api.http.post("/tasks/enqueue", json={"tasks": tasks}, headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert f"tasks[2]: 1 tasks wait in queue {queue}, of 2 that may" in refused.json()["error"]
        assert refused.json()["errors"][0]["index"] == 2
    assert api.http.get(f"/queues/{queue}").json()["counts"] == {"scheduled": 1}

    unique = {**NOOP, "queue": queue, "unique": {"key": queue}}
    first, again, other = (api.http.post("/tasks/enqueue", json={"tasks": [task]}) for task in (unique, unique, NOOP))
    assert [answer.status_code for answer in (first, again, other)] == [200, 200, 200]
    full = api.http.post("/tasks/enqueue", json={"tasks": [{**unique, "unique": {"key": "another"}}]})
    assert (full.status_code, full.json()["errors"][0]["index"]) == (429, 0)
    replaced = {**unique, "priority": 9, "unique": {"key": queue, "onConflict": "replace"}}
    full = api.http.post("/tasks/enqueue", json={"tasks": [replaced, {**NOOP, "queue": queue}]})
    assert (full.status_code, full.json()["errors"][0]["index"]) == (429, 1)
    assert api.task(first.json()["tasks"][0]["id"])["priority"] == 0


def test_the_newest_is_recorded_as_cancelled(api: Api, queue: str) -> None:
    bound(api, queue, maxWaiting=1, overflow="cancelNewest")
    tasks = api.enqueue(*[{**NOOP, "queue": queue}] * 3)
    assert [task["status"] for task in tasks] == ["queued", "cancelled", "cancelled"]
    assert statuses(api, tasks) == ["queued", "cancelled", "cancelled"]
    assert api.task(tasks[1]["id"])["error"] == f"no room: 1 tasks may wait in queue {queue}"


def test_one_waits_with_a_key_and_it_is_the_newest(api: Api, queue: str) -> None:
    bound(api, queue, maxWaitingPerKey=1, overflow="cancelOldest")
    pushes = [api.enqueue({**NOOP, "queue": queue, "concurrencyKey": "main"})[0] for _ in range(4)]
    (other,) = api.enqueue({**NOOP, "queue": queue, "concurrencyKey": "next"})
    assert statuses(api, [*pushes, other]) == ["cancelled"] * 3 + ["queued"] * 2
    assert Counter(statuses(api, api.enqueue(*[{**NOOP, "queue": queue}] * 3))) == {"queued": 3}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"maxWaiting": 0}, "maxWaiting: must be 1 or more, or off"),
        ({"maxWaiting": 100_001}, "maxWaiting: Input should be less than or equal to 100000"),
        ({"maxWaitingPerKey": -1}, "maxWaitingPerKey"),
        ({"overflow": "drop"}, "overflow: Input should be 'wait', 'reject', 'cancelOldest' or 'cancelNewest'"),
    ],
)
def test_a_bound_that_cannot_be_is_refused(api: Api, queue: str, body: Any, problem: str) -> None:
    refused = api.http.patch(f"/queues/{queue}", json=body)
    assert (refused.status_code, problem in refused.json()["error"]) == (400, True), refused.text
