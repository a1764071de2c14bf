"""Deployments of Ray Serve that consume tasks: they take them as workers do, and lose none."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.api.conftest import Api
from tests.deployed import Ledger
from tests.eventually import eventually

QUEUE = "consumed"


@pytest.fixture(scope="module")
def adapter(api: Api) -> Iterator[Any]:
    """Of an application whose two replicas take tasks."""
    from ray import cloudpickle, serve
    from ray.serve.task_consumer import instantiate_adapter_from_config

    from tests.api import serve_consumers

    cloudpickle.register_pickle_by_value(serve_consumers)
    config = serve_consumers.config(QUEUE, api.system.namespace, max_retries=1)
    serve.run(serve_consumers.consumers(config, replicas=2), name="consumers", route_prefix=None)
    eventually(lambda: api.http.get(f"/pools/{QUEUE}").json()["workers"]["present"] == 2)
    eventually(lambda: api.http.get("/types/hold").status_code == 200)
    yield instantiate_adapter_from_config(config)
    serve.delete("consumers")


def test_tasks_come_by_rest_and_by_the_adapter_and_a_killed_replica_loses_none(
    api: Api, adapter: Any, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    (posted,) = api.enqueue({"taskType": "hold", "payload": {"ledger": ledger.path, "n": 1, "gate": str(gate)}})
    assert posted["queue"] == QUEUE
    kept = adapter.enqueue_task_sync("hold", args=[ledger.path], kwargs={"n": 2, "gate": str(gate)})
    assert kept.status == "PENDING"
    victim = eventually(lambda: traces if len(traces := ledger.traces()) == 2 else [])[0]
    assert adapter.get_task_status_sync(kept.id).status == "STARTED"

    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: ledger.has_more_than(2))
    gate.touch()

    assert api.ended(posted["id"])["result"] == 1
    eventually(lambda: adapter.get_task_status_sync(kept.id).status == "SUCCESS")
    assert adapter.get_task_status_sync(kept.id).result == 2
    print(ledger.traces())
