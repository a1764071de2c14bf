"""What operators change is in force at once, and outlives the QueueActor that it was told to."""

from pathlib import Path

import pytest

from asyncproc.changes import Change, Drain, PauseFor, Put, Resume
from asyncproc.core.states import State
from asyncproc.core.steering import Pause
from asyncproc.errors import QueueDraining, SettingsRefused
from tests.actors.conftest import Deploy
from tests.deployed import Ledger, System
from tests.eventually import eventually
from tests.storage.table import query


def change(system: System, *changes: Change) -> None:
    for each in changes:
        system.steer(each)


def notes(system: System, ledger: Ledger, *numbers: int, **options: object) -> list[bytes]:
    return system.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in numbers), **options)


def test_pauses_and_drains_outlive_the_queue_actor(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy()
    change(system, PauseFor(Pause("queue", "mail", by="ada")), Drain("other"))
    system.kill_queue()
    eventually(lambda: system.is_whole(epoch=2))

    (held,) = notes(system, ledger, 1, queue="mail")
    with pytest.raises(QueueDraining, match="queue other is drained"):
        notes(system, ledger, 2, queue="other")
    (free,) = notes(system, ledger, 3)
    system.ended(free)
    assert system.task(held).state is State.QUEUED

    change(system, Resume("queue", "mail"), Resume("queue", "other"))
    system.ended(held)
    system.ended(notes(system, ledger, 4, queue="other")[0])


def test_a_limit_holds_across_workers_and_reigns(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy()
    change(system, Put("queue", "mail", b'{"maxRunning": 1}', "create"))
    tasks = system.enqueue(
        "Hold", *({"ledger": ledger.path, "n": n, "gate": str(gate)} for n in range(3)), queue="mail"
    )
    eventually(ledger.traces)
    system.kill_queue()
    eventually(lambda: system.is_whole(epoch=2))
    system.ended(notes(system, ledger, 9)[0])
    assert len(ledger.traces()) == 2, "one that holds, and the one of another queue"

    gate.touch()
    for task in tasks:
        system.ended(task)


def test_a_changed_aging_is_that_of_all_that_waits(deploy: Deploy, ledger: Ledger, database: str) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    change(system, PauseFor(Pause("queue", "mail")))
    notes(system, ledger, *range(50), queue="mail", priority=3)
    notes(system, ledger, 50, queue="mail", priority=4)
    change(system, Put("queue", "mail", b'{"aging": "1s"}', "merge"))

    def is_done() -> bool:
        return query(database, "SELECT aging_s FROM asyncproc.queue WHERE name = 'mail'") == [(1.0,)]

    eventually(is_done)
    ranks = query(database, "SELECT extract(epoch FROM ready_at)::float8 - rank FROM asyncproc.task_live")
    assert sorted(round(wait, 3) for (wait,) in ranks) == [3.0] * 50 + [4.0]

    change(system, Resume("queue", "mail"))
    eventually(lambda: system.states() == {State.SUCCEEDED: 51})
    assert ledger.order()[0] == 50


def test_a_purge_of_many_parts_leaves_nothing_and_spares_what_comes_later(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"maxBufferSize": 100})
    change(system, PauseFor(Pause("queue", "mail")))
    for _ in range(5):
        notes(system, ledger, *range(1_000), queue="mail", fairness_key="a")
    notes(system, ledger, *range(100), queue="mail", delay_s=3600)
    cancelled, is_done = system.purge("mail")
    eventually(lambda: system.purge("mail") == (0, True))
    (later,) = notes(system, ledger, 7, queue="mail")
    change(system, Resume("queue", "mail"))

    assert system.ended(later).state is State.SUCCEEDED
    assert system.states() == {State.CANCELLED: 5_100, State.SUCCEEDED: 1}
    assert cancelled == 5_100 or not is_done


def test_a_purge_that_a_reign_left_is_finished_by_the_next_one(deploy: Deploy, ledger: Ledger, database: str) -> None:
    system = deploy()
    change(system, PauseFor(Pause("queue", "mail")))
    notes(system, ledger, *range(10), queue="mail")
    query(database, "INSERT INTO asyncproc.purge (queue, asked_at) VALUES ('mail', clock_timestamp())")
    (later,) = notes(system, ledger, 11, queue="mail")
    system.kill_queue()

    eventually(lambda: system.states() == {State.CANCELLED: 10, State.QUEUED: 1})
    eventually(lambda: query(database, "SELECT FROM asyncproc.purge") == [])
    assert system.task(later).state is State.QUEUED


def test_what_cannot_be_stored_changes_nothing(deploy: Deploy) -> None:
    system = deploy()
    with pytest.raises(SettingsRefused, match="there is no such rate limit: known are none"):
        change(system, Put("type", "Note", b'{"rateLimits": {"smtp": 1}}', "merge"))
    change(system, Put("rate", "smtp", b'{"rate": "10/s"}', "replace"))
    change(system, Put("type", "Note", b'{"rateLimits": {"smtp": 1}}', "merge"))
