"""Schedules with a real QueueActor that is killed, and real workers."""

from functools import partial
from itertools import pairwise

from asyncproc.changes import PauseSchedule, Put, PutSchedule
from asyncproc.core.states import State
from asyncproc.core.steering import Pause
from tests.actors.conftest import Deploy
from tests.deployed import Ledger
from tests.eventually import eventually
from tests.storage.table import query


def test_each_tick_is_one_task_though_the_queue_actor_is_killed(deploy: Deploy, ledger: Ledger) -> None:
    work = {"taskType": "Note", "payload": {"ledger": ledger.path, "n": 1}, "every": "1s"}
    system = deploy(
        queue={"workerPoolSize": 1}, types={"Note": {"priority": 7, "timeout": "9s"}}, schedules={"configured": work}
    )
    database = system.deployment.conninfo
    system.steer(
        PutSchedule("stored", b'{"taskType":"Note","payload":{"ledger":%b,"n":2},"every":"1s"}' % _json(ledger), 0)
    )

    def made(name: str) -> list[float]:
        rows = query(
            database, "SELECT extract(epoch FROM due_at)::float8 FROM asyncproc.tick WHERE schedule = %s", name
        )
        return sorted(row[0] for row in rows)

    def goes_on() -> None:
        before = len(made("configured"))
        eventually(lambda: len(made("configured")) > before)

    for epoch in (2, 3):
        goes_on()
        system.kill_queue()
        eventually(partial(system.is_whole, epoch))
    system.steer(Put("type", "Note", b'{"priority":-3}', "replace"))
    goes_on()
    for name in ("configured", "stored"):
        system.steer(PauseSchedule(name, Pause("schedule", name)))

    eventually(lambda: set(system.states()) == {State.SUCCEEDED})
    tasks = {name: system.tasks(created_by=f"schedule {name}") for name in ("configured", "stored")}
    for name, found in tasks.items():
        ticks = made(name)
        assert {later - earlier for earlier, later in pairwise(ticks)} == {1.0}
        assert len(found) == len(ticks)
    runs = ledger.runs()
    assert (runs[1], runs[2]) == (len(tasks["configured"]), len(tasks["stored"]))
    newest, *_, oldest = tasks["configured"]
    assert (oldest.priority, newest.priority, newest.timeout_s) == (7, -3, 9.0)


def _json(ledger: Ledger) -> bytes:
    return f'"{ledger.path}"'.encode()
