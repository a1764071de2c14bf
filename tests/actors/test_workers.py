"""Workers that die, are drained or are replaced: what ran aboard, and what did not."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray

from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System, pid_of, remove_actors
from tests.eventually import eventually


def test_a_killed_worker_is_replaced_and_only_its_tasks_run_again(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy()
    workers = set(system.workers())
    held = [{"ledger": ledger.path, "n": n, "gate": str(gate)} for n in (1, 2)]
    tasks = system.enqueue("Hold", *held)
    victim, bystander = eventually(lambda: traces if len(traces := ledger.traces()) == 2 else [])

    os.kill(victim.pid, signal.SIGKILL)
    again = eventually(lambda: ledger.traces()[2:])[0]
    gate.touch()

    assert (again.n, again.attempt) == (victim.n, 1)
    assert again.worker != victim.worker
    ended = [system.ended(task) for task in tasks]
    assert [(task.state, task.attempt, task.errors) for task in ended] == [(State.SUCCEEDED, 1, b"[]")] * 2
    assert ledger.runs() == {victim.n: 2, bystander.n: 1}
    present = eventually(lambda: names if len(names := set(system.workers())) == 2 else set())
    assert present & workers == {bystander.worker}
    assert {name.partition(".")[0] for name in present} == {"default-1", "default-2"}


@pytest.mark.parametrize("how", ["killed", "exits", "aborts", "segfaults"])
def test_a_task_that_kills_its_worker_fails_alone(deploy: Deploy, ledger: Ledger, gate: Path, how: str) -> None:
    system = deploy()
    (neighbour,) = system.enqueue("Hold", {"ledger": ledger.path, "n": 1, "gate": str(gate)})
    eventually(ledger.traces)

    (poison,) = system.enqueue("Die", {"ledger": ledger.path, "n": 2, "how": how})

    ended = system.ended(poison)
    gate.touch()
    assert ended.state is State.FAILED
    assert (ended.error or "").startswith("WorkerDied: its process was killed or crashed: ")
    assert [error["type"] for error in system.errors(poison)] == ["WorkerDied"]
    assert (system.ended(neighbour).state, system.task(neighbour).attempt) == (State.SUCCEEDED, 1)
    # Once among others, and once in a process of its own, which proves it and leaves the worker alive.
    assert ledger.runs() == {1: 1, 2: 2}
    (second,) = [trace for trace in ledger.traces() if trace.n == 2][1:]
    alive = set(system.workers())
    assert second.worker in alive

    (next_one,) = system.enqueue("Die", {"ledger": ledger.path, "n": 3, "how": how})
    assert system.ended(next_one).state is State.FAILED
    assert ledger.runs()[3] == 1, "its type is known to be dangerous by now"
    assert set(system.workers()) == alive


@pytest.mark.parametrize("task_type", ["Hold", "HoldAsync"])
def test_a_worker_runs_as_many_tasks_at_once_as_it_is_configured_to(
    deploy: Deploy, ledger: Ledger, gate: Path, task_type: str
) -> None:
    system = deploy(queue={"workerPoolSize": 1, "concurrency": 3})
    held = [{"ledger": ledger.path, "n": n, "gate": str(gate)} for n in range(4)]
    tasks = system.enqueue(task_type, *held)

    eventually(lambda: len(ledger.traces()) == 3)
    before = ledger.runs()
    gate.touch()

    assert before == {0: 1, 1: 1, 2: 1}
    assert {system.ended(task).state for task in tasks} == {State.SUCCEEDED}


def test_a_drain_lets_running_tasks_finish_and_hands_back_the_others(
    deploy: Deploy, ledger: Ledger, gate: Path
) -> None:
    system = deploy(queue={"workerPoolSize": 1, "overrun": "1h"})
    running, unstarted = _one_runs_and_others_wait_aboard(system, ledger, gate)

    drained = system.queue().drain.remote(60.0)
    eventually(lambda: {system.task(task).state for task in unstarted} == {State.QUEUED})
    handed_back = [system.task(task) for task in unstarted]
    still = system.task(running)
    gate.touch()
    ray.get(drained)

    assert still.state is State.RUNNING
    assert system.task(running).state is State.SUCCEEDED
    assert {(task.attempt, task.worker, task.errors) for task in handed_back} == {(0, None, b"[]")}
    assert {system.task(task).state for task in unstarted} == {State.QUEUED}
    assert system.workers() == {}
    _start_again(system)
    assert {system.ended(task).state for task in unstarted} == {State.SUCCEEDED}
    assert set(ledger.runs().values()) == {1}


def test_a_task_that_outlasts_the_grace_of_a_drain_is_handed_back_uncharged(
    deploy: Deploy, ledger: Ledger, gate: Path
) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    (task,) = system.enqueue("Hold", {"ledger": ledger.path, "n": 1, "gate": str(gate)})
    eventually(ledger.traces)

    ray.get(system.queue().drain.remote(0.05))
    handed_back = system.task(task)
    _start_again(system)
    gate.touch()

    assert (handed_back.state, handed_back.attempt, handed_back.errors) == (State.QUEUED, 0, b"[]")
    ended = system.ended(task)
    assert (ended.state, ended.attempt, ended.errors) == (State.SUCCEEDED, 1, b"[]")


def test_another_configuration_replaces_queue_actor_and_workers_one_by_one(
    deploy: Deploy, ledger: Ledger, gate: Path
) -> None:
    old = deploy()
    old_queue = pid_of(old.queue())
    old_workers = set(old.workers())
    held = [{"ledger": ledger.path, "n": n, "gate": str(gate)} for n in (0, 1)]
    old.enqueue("Hold", *held)
    eventually(lambda: len(ledger.traces()) == 2)
    old.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in range(2, 200)))

    new = deploy(queue={"maxTaskRetry": 7})
    # The first successor has taken all that waited, and its predecessor still runs: the second has not been made.
    eventually(lambda: new.states()[State.SUCCEEDED] == 198)
    midway = set(new.workers())
    gate.touch()
    eventually(lambda: new.states() == {State.SUCCEEDED: 200})

    fingerprint = new.deployment.fingerprint
    assert fingerprint != old.deployment.fingerprint
    assert pid_of(new.queue()) != old_queue
    assert old_workers < midway
    assert len(midway) == 3
    eventually(lambda: _codes(new) == {"default-1": fingerprint, "default-2": fingerprint})
    assert ledger.runs() == dict.fromkeys(range(200), 1)
    assert not old_workers & set(new.workers())


def test_the_same_configuration_deployed_again_changes_nothing(deploy: Deploy) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    before = (pid_of(system.queue()), set(system.workers()))

    again = deploy(queue={"workerPoolSize": 1})

    assert (pid_of(again.queue()), set(again.workers())) == before


def _one_runs_and_others_wait_aboard(system: System, ledger: Ledger, gate: Path) -> tuple[bytes, list[bytes]]:
    def held(numbers: range, by: Path) -> list[dict[str, Any]]:
        return [{"ledger": ledger.path, "n": n, "gate": str(by)} for n in numbers]

    # The worker is given work ahead of time only once tasks of the type are known to be short, and keeps it only while
    # no overrun is seen.
    opened = gate.with_name("opened")
    opened.touch()
    for task in system.enqueue("Hold", *held(range(10), opened)):
        system.ended(task)
    running, *unstarted = system.enqueue("Hold", *held(range(10, 14), gate))
    eventually(lambda: {system.task(task).state for task in unstarted} == {State.RUNNING})
    eventually(lambda: ledger.order()[-1] == 10)
    return running, unstarted


def _start_again(system: System) -> None:
    remove_actors(system.namespace)
    system.start()


def _codes(system: System) -> dict[str, str]:
    """The code that runs in each place: where a predecessor has not ended, the larger number of letters tells."""
    names = [name.partition(".") for name in system.workers()]
    return {place: code[:8] for place, _, code in names} if len(names) == 2 else {}
