"""Clients that enqueue over HTTP and repeat whatever they get no 2xx for."""

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: a run can be repeated
from typing import Final
from urllib.parse import urlsplit

from asyncproc.clock import monotonic
from chaos.intent import intent
from chaos.ledger import CLIENTS, TASKS, Pen, Tail

BATCH: Final = 100
ANSWER_S: Final = 30.0
_PAUSE_S: Final = 0.1
_NOT_FOR_GOOD: Final = (404, 408, 409, 429)
"""404 is what Serve says of every path while a proxy that it has just started knows no application yet."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for in one run."""

    run: str
    seed: int
    tasks: int
    """At the least: it goes on until no more faults are planned."""
    backlog: int
    """Tasks that may be asked for and not have ended."""
    clients: int = 4
    batch: int = BATCH


@dataclass
class Clients:
    """Threads that post until told that it is enough; each goes on with its last request until it is acknowledged."""

    url: str
    folder: Path
    load: Load
    hasty: float = 0.0
    """Share of the requests that are given up before their answer, or sent again after it."""
    refusal: str = ""
    """Why a request was refused for good; a run with one is invalid."""
    _numbers: "count[int]" = field(default_factory=count)
    _enough: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _asked: int = 0
    _hurried: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._pen = Pen(self.folder / CLIENTS)
        self._tail = Tail(self.folder / TASKS)
        self._deadline = float("inf")

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._post, args=(n,)) for n in range(self.load.clients)]
        for thread in self._threads:
            thread.start()

    def has_sent_all(self) -> bool:
        return self._asked >= self.load.tasks or bool(self.refusal)

    @property
    def hurried(self) -> int:
        """Requests so far that were given up early or sent again."""
        return self._hurried

    def finish(self, within_s: float) -> None:
        """Ask for nothing new, and return once all requests are acknowledged or the time is over."""
        self._deadline = monotonic() + within_s
        self._enough.set()
        for thread in self._threads:
            thread.join()
        self._pen.close()

    def _post(self, number: int) -> None:
        chance = Random(self.load.seed * 1_000 + number)
        connection = _Connection(self.url)
        while not self._enough.is_set() and not self.refusal:
            first = self._next()
            if first is None:
                self._enough.wait(0.01)
                continue
            self._until_acknowledged(connection, first, chance)
        connection.close()

    def _next(self) -> int | None:
        """The first number of the next batch; None while enough is waiting."""
        with self._lock:
            if self._asked - self._tail.look() >= self.load.backlog:
                return None
            self._asked += self.load.batch
            return next(self._numbers) * self.load.batch

    def _until_acknowledged(self, connection: "_Connection", first: int, chance: Random) -> None:
        load = self.load
        ledger = str(self.folder / TASKS)
        tasks = [intent(load.seed, n).body(n, ledger, load.run) for n in range(first, first + load.batch)]
        body = json.dumps({"tasks": tasks}).encode()
        key = f"{load.run}-{first}"
        acknowledged = False
        while not (acknowledged and chance.random() >= self.hasty) and monotonic() < self._deadline:
            hasty = chance.random() < self.hasty
            self._hurried += hasty or acknowledged
            self._pen.write("ask", key, first, load.batch)
            since = monotonic()
            try:
                status, text = connection.post(body, key, chance.uniform(0.001, 0.05) if hasty else ANSWER_S)
            except (OSError, HTTPException) as error:
                self._pen.write("unknown", key, first, type(error).__name__, monotonic() - since)
            else:
                if 200 <= status < 300:
                    self._pen.write("ack", key, first, [task["id"] for task in json.loads(text)["tasks"]])
                    acknowledged = True
                    continue
                if 400 <= status < 500 and status not in _NOT_FOR_GOOD:
                    self.refusal = f"{status}: {text[:300]!r}"
                    return
                self._pen.write("unknown", key, first, str(status), monotonic() - since)
            time.sleep(_PAUSE_S * (0.5 + chance.random()))


class _Connection:
    """Kept alive while all goes well, made anew where it does not."""

    def __init__(self, url: str) -> None:
        self._netloc = urlsplit(url).netloc
        self._http: HTTPConnection | None = None

    def post(self, body: bytes, key: str, timeout_s: float) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            if self._http is None:
                self._http = HTTPConnection(self._netloc, timeout=timeout_s)
                self._http.connect()
            if isinstance(self._http.sock, socket.socket):
                self._http.sock.settimeout(timeout_s)
            self._http.request("POST", "/tasks/enqueue", body, headers)
            answer = self._http.getresponse()
            text = answer.read()
        except (OSError, HTTPException):
            self.close()
            raise
        return answer.status, text

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None
