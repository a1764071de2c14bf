"""A proxy in front of Postgres that cuts a connection exactly while it commits: the outcome is then surely unknown.

It reads as much of the protocol as that takes: which statement of a client is COMMIT, and when the server says that it
is done. Elsewhere it passes bytes.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from enum import Enum
from pathlib import Path
from typing import Any, Final

from asyncproc.clock import monotonic

_CHUNK: Final = 1 << 16
_COMMITTED: Final = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""CommandComplete, as the server sends it."""


class Cut(Enum):
    """What happens to the next COMMIT that comes by."""

    SWALLOW = "the server commits, its answer is dropped and the connection closed"
    RESET = "the connection is reset before the COMMIT reaches the server"
    HOLE = "COMMIT and all after it go nowhere, and nothing is said, until the connection is reset"


class CutProxy:
    """Listens on 127.0.0.1 in a thread of its own and passes everything on to a unix socket."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = str(upstream)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._cut: Cut | None = None
        self._hole_s = 0.0
        self._fired: Future[Cut] | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self.port = 0

    def start(self) -> int:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self.port

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            for relay in self._relays:
                relay.cancel()
            await asyncio.gather(*self._relays, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut_next(self, cut: Cut, hole_s: float = 0.0) -> "Future[Cut]":
        """Do this to the next COMMIT; the future is done once it is. A hole lasts so long."""
        fired: Future[Cut] = Future()
        self._fired = fired
        self._cut, self._hole_s = cut, hole_s
        return fired

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        return server

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        except OSError:
            _reset(writer)
        else:
            await _Relay(self, reader, writer, up_reader, up_writer).run()
        finally:
            self._relays.discard(task)

    def _take(self) -> tuple[Cut | None, float]:
        """What is to be done to this COMMIT, once."""
        cut, self._cut = self._cut, None
        if cut is not None and self._fired is not None:
            self._fired.set_result(cut)
        return cut, self._hole_s


class _Relay:
    """One client and its connection to the server."""

    def __init__(
        self,
        proxy: CutProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._up_reader, self._up_writer = up_reader, up_writer
        self._watch = CommitWatch()
        self._swallowing = False

    async def run(self) -> None:
        ways = [asyncio.ensure_future(self._ended(way)) for way in (self._to_server, self._to_client)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            _reset(self._writer)
            _reset(self._up_writer)

    async def _ended(self, way: Callable[[], Awaitable[None]]) -> None:
        try:
            await way()
        except (OSError, asyncio.CancelledError):
            return

    async def _to_server(self) -> None:
        while data := await self._reader.read(_CHUNK):
            if self._watch.sees_commit(data):
                cut, hole_s = self._proxy._take()
                if cut is Cut.RESET:
                    return
                if cut is Cut.HOLE:
                    await self._swallow(hole_s)
                    return
                self._swallowing = cut is Cut.SWALLOW
            self._up_writer.write(data)
            await self._up_writer.drain()

    async def _swallow(self, hole_s: float) -> None:
        deadline = monotonic() + hole_s
        while (left_s := deadline - monotonic()) > 0:
            try:
                if not await asyncio.wait_for(self._reader.read(_CHUNK), left_s):
                    return
            except TimeoutError:
                return

    async def _to_client(self) -> None:
        seen = b""
        while data := await self._up_reader.read(_CHUNK):
            if self._swallowing:
                seen = (seen + data)[-_CHUNK:]
                if _COMMITTED in seen:
                    return
                continue
            self._writer.write(data)
            await self._writer.drain()


class CommitWatch:
    """Follows what a client sends, and knows which message carries out a COMMIT."""

    def __init__(self) -> None:
        self._rest = b""
        self._greeted = False
        self._commits: set[bytes] = set()
        """Names of prepared statements that are a COMMIT."""

    def sees_commit(self, data: bytes) -> bool:
        self._rest += data
        found = False
        while (message := self._message()) is not None:
            kind, body = message
            if kind == b"Q":
                found |= _is_commit(body.rstrip(b"\x00"))
            elif kind == b"P":
                name, text = body.split(b"\x00", 2)[:2]
                self._commits.discard(name)
                if _is_commit(text):
                    self._commits.add(name)
            elif kind == b"B":
                found |= body.split(b"\x00", 2)[1] in self._commits
        return found

    def _message(self) -> tuple[bytes, bytes] | None:
        """The next whole message; the first of a connection has no kind."""
        head = 1 if self._greeted else 0
        if len(self._rest) < head + 4:
            return None
        size = head + int.from_bytes(self._rest[head : head + 4], "big")
        if len(self._rest) < size:
            return None
        kind, body = self._rest[:head], self._rest[head + 4 : size]
        self._rest = self._rest[size:]
        self._greeted = True
        return kind, body


def _is_commit(text: bytes) -> bool:
    return text.strip().upper() == b"COMMIT"


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST and not in good order: that is what a machine does which lost its memory of the connection."""
    connection: Any = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0 and connection.family == socket.AF_INET:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.close()
