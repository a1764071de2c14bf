"""What a QueueActor answers for: nothing acknowledged is lost, nothing runs twice, whatever becomes of its process."""

from functools import partial
from pathlib import Path

import pytest
import ray

from asyncproc.actors.answers import Cause
from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, remove_actors
from tests.eventually import eventually


def test_no_task_is_lost_and_none_runs_twice_when_the_queue_actor_is_killed(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy()
    rounds, each = 4, 300
    for number in range(rounds):
        payloads = [{"ledger": ledger.path, "n": number * each + n, "seconds": 0.002} for n in range(each)]
        # From the second round on this is sent while the QueueActor is down.
        system.enqueue("Work", *payloads)
        eventually(partial(ledger.has_more_than, len(ledger.order())))
        if number < rounds - 1:
            system.kill_queue()

    eventually(lambda: system.states() == {State.SUCCEEDED: rounds * each})
    assert ledger.runs() == dict.fromkeys(range(rounds * each), 1)
    assert system.health().epoch == rounds


def test_a_new_reign_adopts_what_the_workers_run(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy()
    (task,) = system.enqueue("Hold", {"ledger": ledger.path, "n": 1, "gate": str(gate)})
    eventually(ledger.traces)

    system.kill_queue()
    eventually(lambda: system.is_whole(epoch=2))
    during = system.task(task)
    gate.touch()

    assert (during.state, during.attempt) == (State.RUNNING, 1)
    assert system.ended(task).state is State.SUCCEEDED
    assert ledger.runs() == {1: 1}


def test_a_queue_actor_that_hears_of_a_later_reign_makes_room_for_the_next(deploy: Deploy) -> None:
    system = deploy(queue={"workerPoolSize": 0})

    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(system.queue().register.remote("default-1.x", "default", 1, [], 2))

    eventually(lambda: system.health().epoch == 2)


def test_a_result_that_came_while_the_queue_actor_was_away_is_kept(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy()
    (task,) = system.enqueue("Hold", {"ledger": ledger.path, "n": 1, "gate": str(gate)})
    eventually(ledger.traces)

    system.kill_queue()
    gate.touch()

    assert system.ended(task).state is State.SUCCEEDED
    assert ledger.runs() == {1: 1}


def test_waiting_tasks_outlive_every_actor_and_then_run(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 0})
    tasks = system.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in range(50)))
    later = system.enqueue("Note", {"ledger": ledger.path, "n": 50}, delay_s=5.0)
    assert system.states() == {State.QUEUED: 50, State.SCHEDULED: 1}
    remove_actors(system.namespace)

    again = deploy(queue={"workerPoolSize": 1})

    assert {again.ended(task).state for task in tasks + later} == {State.SUCCEEDED}
    assert ledger.runs() == dict.fromkeys(range(51), 1)


def test_a_backlog_beyond_the_window_runs_in_whole(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"maxBufferSize": 10})

    system.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in range(500)))

    eventually(lambda: system.states() == {State.SUCCEEDED: 500})
    assert ledger.runs() == dict.fromkeys(range(500), 1)


def test_a_delayed_task_starts_no_sooner_than_it_is_due(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1})

    (task,) = system.enqueue("Note", {"ledger": ledger.path, "n": 1}, delay_s=0.2)

    ended = system.ended(task)
    assert ended.ready_at == pytest.approx(ended.created_at + 0.2, abs=1e-5)
    assert ended.started_at is not None
    assert ended.started_at >= ended.ready_at


def test_a_task_of_a_pool_of_its_own_runs_there(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1}, pools={"heavy": {"queues": ["films"], "workers": 1}})

    (film,) = system.enqueue("Note", {"ledger": ledger.path, "n": 1}, queue="films")
    (other,) = system.enqueue("Note", {"ledger": ledger.path, "n": 2}, queue="elsewhere")

    system.ended(film)
    system.ended(other)
    places = {trace.n: trace.worker.partition(".")[0] for trace in ledger.traces()}
    assert places == {1: "heavy-1", 2: "default-1"}


def test_the_same_task_sent_again_exists_once(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    tasks = system.make("Note", {"ledger": ledger.path, "n": 1})

    system.send(tasks)
    system.ended(tasks[0][0])
    assert ray.get(system.queue().enqueue.remote(tasks, True)) is None

    system.ended(*system.enqueue("Note", {"ledger": ledger.path, "n": 2}))
    assert system.states() == {State.SUCCEEDED: 2}
    assert ledger.runs() == {1: 1, 2: 1}


def test_a_call_that_arrives_after_its_own_repetition_makes_no_second_task(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    late, other = system.make("Note", {"ledger": ledger.path, "n": 1}, {"ledger": ledger.path, "n": 2})

    assert ray.get(system.queue().enqueue.remote([late], True)) is None
    system.ended(late[0])
    assert ray.get(system.queue().enqueue.remote([late, other], False)) is None

    system.ended(other[0])
    assert system.states() == {State.SUCCEEDED: 2}
    assert ledger.runs() == {1: 1, 2: 1}


def test_a_task_that_postgres_cannot_keep_is_refused_and_its_neighbour_is_not(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"workerPoolSize": 0})
    (good, bad) = system.make("Note", {"ledger": ledger.path, "n": 1}, {"ledger": ledger.path, "n": 2})

    refusal = ray.get(system.queue().enqueue.remote([good, (bad[0], b"not JSON", *bad[2:])], False))

    assert refusal is not None
    assert refusal.cause is Cause.TASK
    assert refusal.concerns([bad])
    assert not refusal.concerns([good])
    assert [record.id for record in system.tasks()] == [good[0]]


def test_actors_show_who_they_are(deploy: Deploy) -> None:
    system = deploy()

    actors = [system.queue(), *system.workers().values()]

    shown = ray.get([actor.__ray_call__.remote(lambda self: repr(self)) for actor in actors])
    assert sorted(shown) == ["QueueActor", "WorkerActor(default-1)", "WorkerActor(default-2)"]
