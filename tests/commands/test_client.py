"""What a command makes of what the API answers."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from asyncproc.commands.client import ApiRefused, ApiUnreachable, Client, at, url_of
from asyncproc.config import ApiSettings

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer) -> Client:
    return Client("http://api.test/below", httpx.MockTransport(answer))


def test_a_request_is_sent_below_the_url_without_what_was_not_asked() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"done": True})

    with client(answer) as api:
        assert api.request("POST", at("queues", "a/b", "pause"), {"limit": 3, "cursor": None}, {"by": "ada"}) == {
            "done": True
        }

    assert str(seen[0].url) == "http://api.test/below/queues/a%2Fb/pause?limit=3"
    assert json.loads(seen[0].content) == {"by": "ada"}


def test_a_refusal_says_what_the_api_said() -> None:
    with (
        client(lambda _: httpx.Response(404, json={"error": "there is no queue x"})) as api,
        pytest.raises(ApiRefused) as refused,
    ):
        api.request("GET", "/queues/x")

    assert (refused.value.status, str(refused.value)) == (404, "there is no queue x")


@pytest.mark.parametrize("status", [429, 503])
def test_what_asks_to_come_again_is_no_refusal(status: int) -> None:
    with (
        client(lambda _: httpx.Response(status, json={"error": "too much"})) as api,
        pytest.raises(ApiUnreachable, match="too much"),
    ):
        api.request("GET", "/queues")


def test_no_answer_names_where_it_was_looked_for() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with client(fail) as api, pytest.raises(ApiUnreachable, match=r"http://api\.test/below .*--url"):
        api.request("GET", "/queues")


@pytest.mark.parametrize("response", [{"text": "<html>"}, {"content": b"\xff\xfe"}])
def test_what_is_no_json_is_no_api_of_ours(response: dict[str, Any]) -> None:
    with client(lambda _: httpx.Response(200, **response)) as api, pytest.raises(ApiUnreachable):
        api.request("GET", "/queues")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (":8080", "http://127.0.0.1:8080"),
        ("10.1.2.3:80", "http://10.1.2.3:80"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[::]:8080", "http://127.0.0.1:8080"),
    ],
)
def test_the_default_url_is_where_the_api_listens(address: str, url: str) -> None:
    assert url_of(ApiSettings.model_validate({"listenAddr": address})) == url
