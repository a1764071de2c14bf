"""Deployments of Ray Serve that consume tasks: they take them as workers do, and lose none."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from asyncproc.actors.answers import Refusal
from asyncproc.actors.served import Host
from asyncproc.errors import AsyncprocError, TasksRejected
from tests.api.conftest import MAX_TASK_BYTES, Api
from tests.deployed import Ledger
from tests.eventually import eventually

QUEUE = "consumed"
ENDED = ("SUCCESS", "FAILURE", "REVOKED")
HARDLY_SILENT_S = 20.0
"""A worker is given up for its silence after 30."""


@pytest.fixture(scope="module")
def adapter(api: Api) -> Iterator[Any]:
    """Of an application whose two replicas take tasks. The one of the example runs beside it."""
    from ray import cloudpickle, serve
    from ray.serve.task_consumer import instantiate_adapter_from_config

    from examples import summaries
    from tests.api import serve_consumers

    for module in (serve_consumers, summaries):
        cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    config = serve_consumers.config(QUEUE, api.system.namespace, max_retries=1)
    consumers = serve.RunTarget(serve_consumers.consumers(config, replicas=2), name="consumers", route_prefix=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summaries.TASK_PROCESSOR_CONFIG, "adapter_config", {"namespace": api.system.namespace})
        serve.run_many([consumers, serve.RunTarget(summaries.app, name="summaries", route_prefix="/summaries")])
    eventually(lambda: api.http.get(f"/pools/{QUEUE}").json()["workers"]["present"] == 2)
    eventually(lambda: api.http.get("/types/hold").status_code == 200)
    yield instantiate_adapter_from_config(config)
    for name in ("consumers", "summaries"):
        serve.delete(name, _blocking=False)


def hold(ledger: Ledger, n: int, gate: Path) -> dict[str, Any]:
    return {"ledger": ledger.path, "n": n, "gate": str(gate)}


def test_tasks_come_by_rest_and_by_the_adapter_and_a_killed_replica_loses_none(
    api: Api, adapter: Any, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    (posted,) = api.enqueue({"taskType": "hold", "payload": hold(ledger, 1, gate)})
    assert posted["queue"] == QUEUE
    kept = adapter.enqueue_task_sync("hold", args=[ledger.path], kwargs={"n": 2, "gate": str(gate)})
    assert kept.status == "PENDING"
    victim, bystander = eventually(lambda: traces if len(traces := ledger.traces()) == 2 else [])
    assert victim.worker != bystander.worker
    assert adapter.get_task_status_sync(kept.id).status == "STARTED"
    assert adapter.get_metrics_sync() == {"queue": QUEUE, "tasks": 2, "states": {"running": 2}}

    os.kill(victim.pid, signal.SIGKILL)
    again = eventually(lambda: ledger.traces()[2:])[0]
    epoch = api.system.health().epoch
    api.system.kill_queue()
    eventually(lambda: api.system.health().epoch > epoch and api.system.health().storage_ok)
    gate.touch()

    ended = [api.ended(task) for task in (posted["id"], kept.id)]
    assert [(task["status"], task["result"], task["attempt"]) for task in ended] == [
        ("succeeded", n, 1) for n in (1, 2)
    ]
    assert (again.n, again.attempt) == (victim.n, 1)
    assert ledger.runs() == {victim.n: 2, bystander.n: 1}, "who lives on is adopted by the next QueueActor"
    found = adapter.get_task_status_sync(kept.id)
    assert (found.status, found.result) == ("SUCCESS", 2)


def test_a_replica_that_dies_before_the_next_queue_actor_heard_of_it_loses_its_task_as_soon(
    api: Api, adapter: Any, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    kept = adapter.enqueue_task_sync("hold", kwargs=hold(ledger, 1, gate))
    (victim,) = eventually(ledger.traces)
    epoch = api.system.health().epoch
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        api.system.kill_queue()
        eventually(lambda: api.system.health().epoch > epoch and api.system.health().storage_ok)
    finally:
        os.kill(victim.pid, signal.SIGKILL)
    again = eventually(lambda: ledger.traces()[1:], within_s=HARDLY_SILENT_S)[0]
    gate.touch()

    assert again.worker != victim.worker
    assert api.ended(kept.id)["result"] == 1
    assert ledger.runs() == {1: 2}


async def test_handlers_may_be_async_and_so_may_all_calls(
    api: Api, adapter: Any, tmp_path: Path, ledger: Ledger
) -> None:
    kept = await adapter.enqueue_task_async("double", [4], {"plus": 1}, priority=7, created_by="me")

    ended = api.ended(kept.id)

    assert (ended["result"], ended["priority"], ended["createdBy"]) == ({"doubled": 9}, 7, "me")
    assert ended["payload"] == {"plus": 1, "*args": [4]}
    assert (await adapter.get_task_status_async(kept.id)).result == {"doubled": 9}
    assert (await adapter.get_metrics_async())["queue"] == QUEUE
    ((name, health),) = (await adapter.health_check_async())[0].items()
    assert (name, health["ok"]) == ("QueueActor", "pong")
    late = await adapter.enqueue_task_async("hold", kwargs=hold(ledger, 1, tmp_path / "gate"), delay=3600)
    await adapter.cancel_task_async(late.id)
    assert adapter.get_task_status_sync(late.id).status == "REVOKED"


def test_what_fails_is_tried_as_often_as_the_config_says_and_is_a_dead_letter_then(
    api: Api, adapter: Any, ledger: Ledger
) -> None:
    failing = adapter.enqueue_task_sync("fail", kwargs={"ledger": ledger.path})
    (by_rest,) = api.enqueue({"taskType": "fail", "payload": {"ledger": ledger.path}})
    wrong = adapter.enqueue_task_sync("double", kwargs={"nummer": 4})

    assert [api.ended(task)["attempt"] for task in (failing.id, by_rest["id"], wrong.id)] == [2, 2, 1]
    found = adapter.get_task_status_sync(failing.id)
    assert (found.status, found.result) == ("FAILURE", "ValueError: no such thing")
    assert "cannot be called with these arguments" in adapter.get_task_status_sync(wrong.id).result
    assert {task["id"] for task in api.listed(state="failed", queue=QUEUE)} >= {failing.id, wrong.id}


def test_replicas_get_no_task_that_they_have_no_handler_for_and_workers_none_of_theirs(api: Api, adapter: Any) -> None:
    (note,) = api.enqueue({"taskType": "Note", "payload": {"ledger": "/dev/null", "n": 1}, "queue": QUEUE})
    (double,) = api.enqueue({"taskType": "double", "payload": {"number": 1}, "queue": "default"})
    unheard_of = adapter.enqueue_task_sync("unheard_of")

    eventually(lambda: api.http.get("/types").json()["unknown"] == ["Note", "double", "unheard_of"])
    ids = (note["id"], double["id"], unheard_of.id)
    assert [(api.task(task)["status"], api.task(task)["attempt"]) for task in ids] == [("queued", 0)] * 3

    for task in ids:
        adapter.cancel_task_sync(task)
    assert api.http.get("/types").json()["unknown"] == []


@pytest.mark.parametrize(
    ("queue", "handlers", "problem"),
    [
        ("default", {"cut": 3}, "queue default is served by the WorkerActors of pool default, which know no handlers"),
        (QUEUE, {"Note": None}, "the WorkerActors have task types called Note: give the handlers other names"),
        (QUEUE, {f"handler-{n}": 3 for n in range(200)}, "at most 200 are kept"),
        ("nobody", {"cut": 3}, "there is a pool nobody that does not serve queue nobody"),
    ],
)
def test_handlers_that_cannot_be_had_are_refused(api: Api, queue: str, handlers: Any, problem: str) -> None:
    answer = ray.get(api.system.queue().served.remote(Host(queue, handlers)))

    assert isinstance(answer, Refusal)
    assert problem in answer.text


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"queue_name": "a queue"}, "queue_name: queue is 'a queue': it must match"),
        ({"max_retries": 100}, "max_retries is 100: it must be from 0 to 99"),
        ({"adapter_config": 7}, "adapter_config is a int: it must be an AsyncprocAdapterConfig"),
        ({"adapter_config": {"namspace": "x"}}, "namspace"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(ray_cluster: None, wrong: dict[str, Any], problem: str) -> None:
    from ray.serve.schema import TaskProcessorConfig
    from ray.serve.task_consumer import instantiate_adapter_from_config

    adapter = "asyncproc.serve.AsyncprocAdapter"
    config = TaskProcessorConfig(**{"queue_name": QUEUE, "adapter": adapter, "adapter_config": None, **wrong})

    with pytest.raises(RuntimeError, match="Failed to instantiate AsyncprocAdapter") as refused:
        instantiate_adapter_from_config(config)
    assert problem in str(refused.value)


def test_calls_that_no_task_can_have_are_refused(adapter: Any) -> None:
    with pytest.raises(ValueError, match="priority is 1000"):
        adapter.enqueue_task_sync("double", [1], priority=1000)
    with pytest.raises(TypeError, match="countdown"):
        adapter.enqueue_task_sync("double", [1], countdown=1)
    with pytest.raises(TypeError, match="must be JSON values"):
        adapter.enqueue_task_sync("double", [object()])
    with pytest.raises(TasksRejected, match=f"at most {MAX_TASK_BYTES} are allowed"):
        adapter.enqueue_task_sync("double", ["x" * MAX_TASK_BYTES])
    with pytest.raises(AsyncprocError, match="there is no task none"):
        adapter.get_task_status_sync("none")
    with pytest.raises(AsyncprocError, match="there is no task 0"):
        adapter.cancel_task_sync("00000000-0000-7000-8000-000000000000")
    with pytest.raises(RuntimeError, match="in a replica of Ray Serve alone"):
        adapter.start_consumer()


def test_a_replica_that_serve_ends_finishes_what_it_runs(
    api: Api, adapter: Any, ledger: Ledger, tmp_path: Path
) -> None:
    from ray import serve

    gate = tmp_path / "gate"
    tasks = api.enqueue(*({"taskType": "hold", "payload": hold(ledger, n, gate)} for n in range(6)))
    eventually(lambda: len(ledger.traces()) == 4)

    serve.delete("consumers", _blocking=False)
    eventually(lambda: api.http.get(f"/pools/{QUEUE}").json()["workers"]["leaving"] == 2)
    gate.touch()

    eventually(lambda: api.http.get(f"/pools/{QUEUE}").json()["workers"]["leaving"] == 0)
    ran = {trace.n for trace in ledger.traces()}
    assert len(ran) == 4
    assert {api.task(task["id"])["status"] for n, task in enumerate(tasks) if n in ran} == {"succeeded"}
    assert {api.task(task["id"])["status"] for n, task in enumerate(tasks) if n not in ran} == {"queued"}
    assert set(ledger.runs().values()) == {1}
    for task in tasks:
        adapter.cancel_task_sync(task["id"])


def test_the_example_runs(adapter: Any, serve_url: str) -> None:
    with httpx.Client(base_url=f"{serve_url}/summaries", timeout=30) as http:

        def ended(text: str) -> dict[str, Any]:
            task = http.post("/process", json={"text": text}).json()
            assert task["status"] == "PENDING"
            url = f"/status/{task['task_id']}"
            return eventually(lambda: found if (found := http.get(url).json())["status"] in ENDED else {})

        assert ended("One. Two words.")["result"] == {"summary": "One", "word_count": 3}


def test_what_is_there_for_celery_is_passed_over(ray_cluster: None) -> None:
    from ray.serve.schema import CeleryAdapterConfig, TaskProcessorConfig
    from ray.serve.task_consumer import instantiate_adapter_from_config

    from asyncproc.serve import AsyncprocAdapter

    urls = CeleryAdapterConfig(broker_url="redis://nowhere", backend_url="redis://nowhere")
    config = TaskProcessorConfig(queue_name=QUEUE, adapter=AsyncprocAdapter, adapter_config=urls)

    assert isinstance(instantiate_adapter_from_config(config), AsyncprocAdapter)
    assert not {name for name in sys.modules if name.partition(".")[0] in ("celery", "kombu")}
