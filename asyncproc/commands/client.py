"""The REST API as the commands call it: one request, its JSON or an error that says what the API said."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

import click
import httpx

from asyncproc.config import ApiSettings
from asyncproc.config_file import load
from asyncproc.errors import AsyncprocError

URL_VARIABLE: Final = "ASYNCPROC_URL"
TIMEOUT_S: Final = 75.0
"""Longer than the API itself waits for anything."""
_CONNECT_S: Final = 5.0
_AGAIN: Final = frozenset({429, 502, 503, 504})
_EVERY: Final = frozenset({"0.0.0.0", "::"})


@dataclass(eq=False)
class ApiRefused(AsyncprocError):
    """The API will not do it; the text is its own."""

    status: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(eq=False)
class ApiUnreachable(AsyncprocError):
    """No answer, or one that says to come again: nobody knows whether anything was done."""

    url: str
    cause: str

    def __str__(self) -> str:
        return f"{self.url} does not serve this request ({self.cause}): try again, or name the API by --url"


class Client:
    """Use it as a context manager."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        timeout = httpx.Timeout(TIMEOUT_S, connect=_CONNECT_S)
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout, transport=transport)
        except (httpx.InvalidURL, ValueError) as error:
            raise click.BadParameter(str(error), param_hint="--url") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def events(self, path: str, last_id: str | None) -> Iterator[tuple[str, str]]:
        """Id and data of server-sent events, after the one of `last_id`, until the stream ends or breaks off. Raises
        `ApiRefused` and `ApiUnreachable`."""
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if response.is_error:
                    response.read()
                    self._refuse(response)
                fields: dict[str, str] = {}
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    if not line and "data" in fields:
                        yield fields.get("id", ""), fields["data"]
                        fields = {}
        except httpx.RemoteProtocolError:
            return  # whoever follows asks again
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiUnreachable(self.url, str(error) or type(error).__name__) from None

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int | Sequence[str | int] | None] | None = None,
        json: Any = None,
    ) -> Any:
        """What the API answers; `params` that are None are left out. Raises `ApiRefused` and `ApiUnreachable`."""
        asked = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            response = self._http.request(method, path, params=asked, json=json)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiUnreachable(self.url, str(error) or type(error).__name__) from None
        if response.is_error:
            self._refuse(response)
        try:
            return response.json() if response.content else None
        except ValueError:
            raise ApiUnreachable(self.url, "what answers there is no asyncproc") from None

    def _refuse(self, response: httpx.Response) -> NoReturn:
        if response.status_code in _AGAIN:
            raise ApiUnreachable(self.url, _text(response))
        raise ApiRefused(response.status_code, _text(response))


def at(*parts: str) -> str:
    """A path of the API, each part quoted: names come from people."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def with_api(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--url`, `--config` and `--json`, and hands the command a `client` and `as_json`."""

    @click.option("--url", envvar=URL_VARIABLE, help=f"Where the API is; default {URL_VARIABLE}, then api.listenAddr.")
    @click.option("--config", "config_path", type=click.Path(path_type=Path), help="The YAML file that names it.")
    @click.option("--json", "as_json", is_flag=True, help="Print the answer as the API gave it.")
    @wraps(command)
    def call(*args: Any, url: str | None, config_path: Path | None, **options: Any) -> None:
        with Client(url or _configured_url(config_path)) as client:
            command(*args, client=client, **options)

    return call


def _configured_url(path: Path | None) -> str:
    return url_of(load(path, os.environ, Path.cwd()).api)


def url_of(api: ApiSettings) -> str:
    host = "127.0.0.1" if api.host in _EVERY else api.host
    return f"http://{f'[{host}]' if ':' in host else host}:{api.port}"


def _text(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"
