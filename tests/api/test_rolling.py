"""New code and configuration take over under load: nobody is told of it, and nothing runs twice."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from asyncproc.core.states import State
from tests.api.conftest import served
from tests.deployed import Ledger, settings_of
from tests.eventually import eventually


class Client:
    """Posts one batch after the other, and keeps what it was answered."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self.accepted = 0
        self.refused: list[str] = []
        self._url, self._ledger, self._enough = url, ledger, Event()
        self._thread = Thread(target=self._post, daemon=True)

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _post(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            while not self._enough.is_set():
                notes = [{"ledger": self._ledger.path, "n": self.accepted + n} for n in range(10)]
                tasks: list[dict[str, Any]] = [{"taskType": "Note", "payload": note} for note in notes]
                response = http.post("/tasks/enqueue", json={"tasks": tasks})
                if response.status_code == 200:
                    self.accepted += len(tasks)
                else:
                    self.refused.append(f"{response.status_code} {response.text}")


def test_a_redeployment_under_load_is_not_seen_by_clients(
    serve_url: str, databases: Callable[[], AbstractContextManager[str]], start_dir: Path, ledger: Ledger
) -> None:
    from ray import serve

    from asyncproc.serving import application

    with databases() as database, served(serve_url, settings_of(database, "rolling"), start_dir) as api:
        before = set(api.system.workers())
        with Client(api.url, ledger) as client:
            eventually(lambda: client.accepted > 100)
            other = settings_of(database, "rolling", queue={"maxTaskRetry": 7})
            serve.run(application(other, start_dir), name="rolling", route_prefix="/rolling")
            eventually(lambda: len(now := set(api.system.workers())) == 2 and not now & before)
            seen = client.accepted
            eventually(lambda: client.accepted > seen + 100)

        eventually(lambda: api.system.states() == {State.SUCCEEDED: client.accepted})
        assert client.refused == []
        assert ledger.runs() == dict.fromkeys(range(client.accepted), 1)
