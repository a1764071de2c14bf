"""A request with an `Idempotency-Key` may be sent again and again: it makes its tasks once, and has one answer."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api
from tests.deployed import Ledger

KEY = "Idempotency-Key"


def body(ledger: Ledger, creator: str, *numbers: int) -> bytes:
    tasks = [{"taskType": "Note", "payload": {"ledger": ledger.path, "n": n}, "createdBy": creator} for n in numbers]
    return json.dumps({"tasks": tasks}).encode()


def post(api: Api, content: bytes, *keys: str | bytes) -> httpx.Response:
    return api.http.post("/tasks/enqueue", content=content, headers=[(KEY.encode(), _bytes(key)) for key in keys])


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def test_the_same_request_again_gets_the_same_answer_and_makes_no_second_task(
    api: Api, ledger: Ledger, creator: str
) -> None:
    content = body(ledger, creator, 1, 2, 3)

    first = post(api, content, creator)
    at_once = post(api, content, creator)
    for task in first.json()["tasks"]:
        api.ended(task["id"])
    after_the_end = post(api, content, creator)

    assert first.status_code == 200
    for again in (at_once, after_the_end):
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert len(api.listed(createdBy=creator)) == 3
    assert ledger.runs() == {1: 1, 2: 1, 3: 1}


def test_another_body_with_the_same_key_is_refused_with_what_to_do(api: Api, ledger: Ledger, creator: str) -> None:
    first = post(api, body(ledger, creator, 1), creator)

    other = post(api, body(ledger, creator, 2), creator)
    spaced = post(api, body(ledger, creator, 1) + b" ", creator)

    for refused in (other, spaced):
        assert refused.status_code == 422
        assert "came with another body" in refused.json()["error"]
        assert "new key" in refused.json()["error"]
    assert post(api, body(ledger, creator, 1), creator).content == first.content
    assert len(api.listed(createdBy=creator)) == 1


def test_other_keys_and_no_keys_are_requests_of_their_own(api: Api, ledger: Ledger, creator: str) -> None:
    content = body(ledger, creator, 1)

    answers = [post(api, content, *keys) for keys in ([f"{creator}-a"], [f"{creator}-b"], [], [])]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["tasks"][0]["id"] for answer in answers}) == 4


async def test_of_many_at_once_with_one_key_all_get_the_one_answer(api: Api, ledger: Ledger, creator: str) -> None:
    content = body(ledger, creator, 1)
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as http:
        responses = await asyncio.gather(
            *(http.post("/tasks/enqueue", content=content, headers={KEY: creator}) for _ in range(50))
        )

    assert {(response.status_code, response.content) for response in responses} == {(200, responses[0].content)}
    assert len(api.listed(createdBy=creator)) == 1


async def test_requests_with_different_keys_share_calls_and_keep_their_own_answers(
    api: Api, ledger: Ledger, creator: str
) -> None:
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as http:

        async def send() -> list[Any]:
            requests = (
                http.post("/tasks/enqueue", content=body(ledger, creator, n), headers={KEY: f"{creator}-{n}"})
                for n in range(100)
            )
            return [response.json() for response in await asyncio.gather(*requests)]

        first, again = await send(), await send()

    assert first == again
    assert len({answer["tasks"][0]["id"] for answer in first}) == 100
    assert len(api.listed(createdBy=creator, limit=1000)) == 100


def test_a_request_that_was_refused_has_not_used_its_key(api: Api, ledger: Ledger, creator: str) -> None:
    bad = json.dumps({"tasks": [{"taskType": "Nothing", "createdBy": creator}]}).encode()

    refused = post(api, bad, creator)
    mended = post(api, body(ledger, creator, 1), creator)

    assert (refused.status_code, mended.status_code) == (400, 200)
    assert post(api, bad, creator).status_code == 400


@pytest.mark.parametrize("key", ["k", "~" * 255, "a key, with: {punctuation}"])
def test_any_printable_text_is_a_key(api: Api, ledger: Ledger, creator: str, key: str) -> None:
    content = body(ledger, creator, 1)

    assert post(api, content, key).content == post(api, content, key).content
    assert len(api.listed(createdBy=creator)) == 1


@pytest.mark.parametrize(
    "keys", [[""], ["x" * 256], [b"tab\there"], ["caf\u00e9"], [b"\xff"], ["one", "two"]], ids=repr
)
def test_what_is_no_key_is_refused_by_name(api: Api, ledger: Ledger, creator: str, keys: list[str | bytes]) -> None:
    refused = post(api, body(ledger, creator, 1), *keys)

    assert refused.status_code == 400
    assert KEY in refused.json()["error"]
    assert api.listed(createdBy=creator) == []
