"""Pools that follow what waits, are changed while they run, or are made for what tasks ask."""

from pathlib import Path

import pytest
import ray

from asyncproc.actors.places import Standing
from asyncproc.changes import Delete, Put
from asyncproc.core.states import State
from asyncproc.errors import SettingsRefused
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System
from tests.eventually import eventually

ONE_GPU = "gpu1"


def standing(system: System, pool: str) -> Standing | None:
    found: list[Standing] = ray.get(system.queue().pools.remote())
    return next((each for each in found if each.pool == pool), None)


def present(system: System, pool: str) -> set[str]:
    return {name for name in system.workers() if name.rpartition("-")[0] == pool}


def test_a_burst_scales_a_pool_up_and_to_none_after_it(deploy: Deploy, ledger: Ledger) -> None:
    burst = {"queues": ["burst"], "workers": {"min": 0, "max": 3}, "targetWait": "1s", "idleAfter": "1s"}
    system = deploy(queue={"workerPoolSize": 0}, pools={"burst": burst})
    assert system.workers() == {}

    system.enqueue("Work", *({"ledger": ledger.path, "n": n, "seconds": 0.05} for n in range(200)), queue="burst")
    eventually(lambda: len(present(system, "burst")) == 3)
    eventually(lambda: system.states() == {State.SUCCEEDED: 200})
    eventually(lambda: not system.workers())

    assert ledger.runs() == dict.fromkeys(range(200), 1)
    assert {task.attempt for task in system.tasks()} == {1}
    found = eventually(lambda: found if (found := standing(system, "burst")) and not found.wanted else None)
    assert found.history[0][1] == 3
    assert "200 tasks wait" in found.history[0][2]
    assert found.history[-1][1:] == (0, "0 tasks run and none waits")
    assert found.problem == ""
    (again,) = system.enqueue("Note", {"ledger": ledger.path, "n": 200}, queue="burst")
    system.ended(again)


def test_a_pool_is_made_changed_and_ended_while_its_tasks_run(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    system.steer(Put("pool", "films", b'{"queues": ["films"], "workers": 2}', "create"))
    held = [{"ledger": ledger.path, "n": n, "gate": str(gate)} for n in (1, 2)]
    tasks = system.enqueue("Hold", *held, queue="films")
    eventually(lambda: len(ledger.traces()) == 2)
    assert {trace.worker.partition(".")[0] for trace in ledger.traces()} == {"films-1", "films-2"}

    # One of them is too many, the other is made otherwise: both finish what they run.
    system.steer(Put("pool", "films", b'{"workers": 1, "environment": {"GREETING": "hello"}}', "merge"))
    (new,) = eventually(lambda: present(system, "films") - {trace.worker for trace in ledger.traces()})
    (greeting,) = system.enqueue("Environment", {"name": "GREETING"}, queue="films")
    assert system.ended(greeting).result == b'"hello"'
    assert [system.task(task).state for task in tasks] == [State.RUNNING] * 2
    with pytest.raises(SettingsRefused, match="films is served by pool films"):
        system.steer(Put("pool", "other", b'{"queues": ["films"]}', "create"))
    gate.touch()
    eventually(lambda: present(system, "films") == {new})
    assert [system.ended(task).attempt for task in tasks] == [1, 1]

    system.steer(Delete("pool", "films"))
    eventually(lambda: not present(system, "films"))
    (after,) = system.enqueue("Note", {"ledger": ledger.path, "n": 3}, queue="films")
    system.ended(after)
    assert ledger.traces()[-1].worker.startswith("default-1.")
    assert set(ledger.runs().values()) == {1}


def test_gpu_tasks_never_have_more_than_there_is_while_others_go_on(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy(queue={"workerPoolSize": 1}, shapes={"idleAfter": "200ms", "targetWait": "100ms"})
    held = [{"ledger": ledger.path, "n": n, "gate": str(gate)} for n in range(5)]
    tasks = system.enqueue("Hold", *held, resources=ONE_GPU)
    (never,) = system.enqueue("Note", {"ledger": ledger.path, "n": 9}, resources="gpu8")
    eventually(lambda: len(ledger.traces()) == 2)
    others = system.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in range(10, 20)))
    for task in others:
        system.ended(task)

    def problem(pool: str) -> str:
        found = standing(system, pool)
        return "" if found is None else found.problem

    eventually(lambda: problem("default~gpu1") == "the nodes that offer 1 GPU are taken")
    eventually(lambda: problem("default~gpu8") == "no node offers 8 GPU")
    look = ray.get(system.queue().explain.remote(never))
    assert [reason.text for reason in look.reasons] == [
        "pool default~gpu8, which serves queue default, has no worker: no node offers 8 GPU"
    ]
    assert "pool default~gpu8: no node offers 8 GPU" in system.health().warnings
    assert len([trace for trace in ledger.traces() if trace.n < 5]) == 2

    system.kill_queue()
    eventually(lambda: system.is_whole(epoch=2))
    assert {task.state for task in map(system.task, tasks)} == {State.RUNNING, State.QUEUED}
    gate.touch()
    assert {system.ended(task).attempt for task in tasks} == {1}
    assert set(ledger.runs().values()) == {1}
    assert {trace.worker.rpartition("-")[0] for trace in ledger.traces() if trace.n < 5} == {"default~gpu1"}
    eventually(lambda: not present(system, "default~gpu1"))
    eventually(lambda: standing(system, "default~gpu1") is None)
    assert system.task(never).state is State.QUEUED
