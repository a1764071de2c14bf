"""A client that costs little beside what it measures: prepared bytes over kept-alive sockets."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from fastapi import FastAPI, Request
from ray import serve

if TYPE_CHECKING:
    from bench.machine import Machine


@dataclass(frozen=True, slots=True)
class Posted:
    seconds: float
    waits_ms: list[float]


def post_bodies(url: str, body: bytes, number: int, connections: int) -> Posted:
    """Post the same body so many times to /tasks/enqueue, over so many connections at once."""
    return asyncio.run(_post(url, body, number, connections))


async def _post(url: str, body: bytes, number: int, connections: int) -> Posted:
    parts, request = _request(url, body)
    waits: list[float] = []
    left = iter(range(number))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
        try:
            for _ in left:
                since = time.perf_counter()
                try:
                    await _accepted(reader, writer, request)
                except (asyncio.IncompleteReadError, ConnectionError):
                    # The load balancer was reloaded for a new application, and closed what was open.
                    await _close(writer)
                    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
                    await _accepted(reader, writer, request)
                waits.append(1_000 * (time.perf_counter() - since))
        finally:
            await _close(writer)

    since = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    return Posted(time.perf_counter() - since, waits)


Told = dict[int, list[float]]
"""Waits for answers in milliseconds, by status."""


async def flood(
    url: str, body: bytes, connections: int, rate: float, seconds: float, look: Callable[[], None], *, heeds: bool
) -> Told:
    """Post the body so many times a second in all, each connection one at a time. One that is refused `heeds` what
    `Retry-After` says, or sends again as if nothing were. `look` is called every five seconds, in a thread."""
    parts, request = _request(url, body)
    told: Told = {}
    begin = time.perf_counter()

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
        due = begin + number / rate
        try:
            while due < begin + seconds:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                since = time.perf_counter()
                status, head = await _exchange(reader, writer, request)
                told.setdefault(status, []).append(1_000 * (time.perf_counter() - since))
                due = max(due + connections / rate, since)
                if heeds and (wait_s := _header(head, b"retry-after")):
                    due = max(due, time.perf_counter() + int(wait_s))
        finally:
            await _close(writer)

    async def looking() -> None:
        while True:
            await asyncio.to_thread(look)
            await asyncio.sleep(5)

    looks = asyncio.create_task(looking())
    await asyncio.gather(*(connection(number) for number in range(connections)))
    looks.cancel()
    return told


async def beside(url: str, asked: Iterator[tuple[str, str]], every_s: float, until: "asyncio.Future[Any]") -> Told:
    """Ask one after the other, by method and path, over one connection, until something else is done."""
    parts = urlsplit(url)
    told: Told = {}
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
    try:
        while not until.done():
            method, path = next(asked)
            since = time.perf_counter()
            status, _ = await _exchange(reader, writer, _head(parts, method, path, 0))
            told.setdefault(status, []).append(1_000 * (time.perf_counter() - since))
            await asyncio.wait([until], timeout=every_s)
    finally:
        await _close(writer)
    return told


def _request(url: str, body: bytes) -> tuple[SplitResult, bytes]:
    parts = urlsplit(url)
    return parts, _head(parts, "POST", "/tasks/enqueue", len(body)) + body


def _head(parts: SplitResult, method: str, path: str, size: int) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size}\r\n\r\n"
    )
    return head.encode()


def _header(head: bytes, name: bytes) -> bytes:
    """Its value, empty where it is not there."""
    return head.lower().partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """The status of the answer, and its head."""
    writer.write(request)
    answer = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(_header(answer, b"content-length")))
    return int(answer[9:12]), answer


async def _accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    status, answer = await _exchange(reader, writer, request)
    if status != 200:
        raise AssertionError(answer[:500])


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def answers_only(machine: "Machine") -> Iterator[str]:
    """A Serve application that reads the body and answers: what one request costs at the least."""
    url = machine.serve_url()

    def build() -> FastAPI:
        app = FastAPI()

        @app.post("/tasks/enqueue")
        async def enqueue(request: Request) -> dict[str, str]:
            await request.body()
            return {"status": "enqueued"}

        return app

    deployment = serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
    serve.run(deployment(serve.ingress(build)()).bind(), name="bare", route_prefix="/")
    try:
        yield url
    finally:
        serve.delete("bare")
