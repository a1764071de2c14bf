"""Ticks, their tasks and the positions of schedules stand or fall together, and each tick is one task for ever."""

from collections import Counter
from random import Random  # noqa: TID251 - seeded: a failing history replays
from typing import Any

import pytest

from asyncproc.changes import DeleteSchedule, PauseSchedule, PutSchedule, ResumeSchedule
from asyncproc.core.events import SchedulesChanged
from asyncproc.core.schedule import CatchUp, Overlap, Position, Schedule, Tick
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import Pause
from asyncproc.core.step import Core
from asyncproc.cron import Every
from asyncproc.errors import EpochLost
from asyncproc.storage import schedules
from asyncproc.storage.batch import build
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.retention import Retention
from tests.storage.table import NOW, a_task, claim, live, query, write, write_again

AGING = 60.0


def tick(task_id: bytes, outcome: str = "task", due_at: float = NOW, name: str = "s") -> tuple[Any, ...]:
    return (task_id, name, due_at, "tick", outcome, NOW)


def outcomes(database: str) -> dict[bytes, str]:
    return {row[0].bytes: row[1] for row in query(database, "SELECT task_id, outcome FROM asyncproc.tick")}


async def test_what_is_written_of_schedules_is_found_by_the_next_reign(storage: Storage, database: str) -> None:
    task, later = a_task(), a_task()
    ticks = [tick(later.id, "waiting"), tick(b"\x01" * 16, "waiting", NOW - 1), tick(task.id)]
    positions = [("s", "1m UTC", NOW, task.id), ("t", "5m UTC", NOW - 60, None)]
    writes: dict[str, Any] = {"inserts": [task], "ticks": ticks, "positions": positions}
    assert (await write(storage, **writes)).refused == []
    assert (await write_again(storage, **writes)).refused == []

    loaded = await storage.load({}, AGING)

    assert loaded.positions == {
        "s": Position("1m UTC", NOW, task.id, is_live=True),
        "t": Position("5m UTC", NOW - 60, None, is_live=False),
    }
    assert loaded.waiting == [("s", Tick(b"\x01" * 16, NOW - 1)), ("s", Tick(later.id, NOW))]

    # The task ends, the tick that waited gets its turn, and a schedule is deleted.
    await write(storage, claims=[claim(task)])
    await write(
        storage,
        succeeded=[(task.id, 1, b"1")],
        inserts=[later],
        ticks=[tick(later.id)],
        positions=[("s", "1m UTC", NOW, later.id)],
        positions_over=["t"],
    )
    loaded = await storage.load({}, AGING)
    assert loaded.positions == {"s": Position("1m UTC", NOW, later.id, is_live=True)}
    assert outcomes(database) == {task.id: "task", later.id: "task", b"\x01" * 16: "waiting"}
    # What a replay of the older commit says comes too late.
    await write_again(storage, ticks=ticks)
    assert outcomes(database)[later.id] == "task"


async def test_a_tick_whose_task_is_refused_is_not_on_record_and_its_neighbours_are(
    storage: Storage, database: str
) -> None:
    good, bad = a_task(), a_task(payload=b"{")
    positions = [("s", "", NOW, good.id)]
    committed = await write(storage, inserts=[bad, good], ticks=[tick(bad.id), tick(good.id)], positions=positions)
    assert committed.rejected.keys() == {bad.id}
    assert outcomes(database) == {good.id: "task"}
    assert (await storage.load({}, AGING)).positions["s"].at == NOW


async def test_schedules_are_stored_by_version_and_behind_the_fence(
    storage: Storage, successor: Storage, database: str
) -> None:
    async def change(asked: Any) -> tuple[bool, Any]:
        return await storage.between(schedules.change, asked, NOW)

    document = b'{"taskType":"Work","payload":{"big":1e5000,"a":"\\u00e9"},"every":"5m"}'
    done, stored = await change(PutSchedule("s", document, 0))
    assert done
    assert stored.version == 1
    assert not (await change(PutSchedule("s", b"{}", 0)))[0]
    assert not (await change(PutSchedule("s", b"{}", 7)))[0]
    done, stored = await change(PutSchedule("s", b'{"taskType":"Other"}', 1))
    assert (done, stored.version, stored.settings) == (True, 2, {"taskType": "Other"})
    _, stored = await change(PauseSchedule("s", Pause("schedule", "s", 0.0, "why", "ada"), 60.0))
    assert stored.pause == Pause("schedule", "s", NOW + 60, "why", "ada", NOW)
    _, stored = await change(ResumeSchedule("s"))
    assert (stored.pause, stored.version) == (None, 2)
    await change(PauseSchedule("configured", Pause("schedule", "configured")))
    assert (await storage.between(schedules.stored)).keys() == {"s", "configured"}
    assert await change(DeleteSchedule("s")) == (True, None)
    assert await change(DeleteSchedule("s")) == (False, None)
    await successor.take_over()
    with pytest.raises(EpochLost):
        await change(PutSchedule("s", document, 0))


async def test_old_ticks_go_and_those_that_wait_stay(storage: Storage, database: str) -> None:
    old = [(bytes([n]) * 16, "s", NOW, "tick", "waiting" if n == 1 else "task", NOW - 7200) for n in range(1, 5)]
    await write(storage, ticks=[*old, tick(b"\x09" * 16)])
    swept = await Retention(database, {}, 3600.0).sweep(storage.epoch)
    assert swept.ticks == 3
    assert outcomes(database).keys() == {b"\x01" * 16, b"\x09" * 16}


async def test_the_last_ticks_of_some_schedules(storage: Storage, database: str) -> None:
    await write(storage, ticks=[tick(bytes([n]) * 16, due_at=NOW + n, name="s" if n % 2 else "t") for n in range(1, 9)])
    inspector = Inspector(database, 1)
    await inspector.open()
    found = await inspector.last_ticks(["s", "u"], 2)
    await inspector.close()
    assert {name: [row.due_at - NOW for row in rows] for name, rows in found.items()} == {"s": [7.0, 5.0]}


async def test_each_tick_is_one_task_whatever_becomes_of_the_commits(storage: Storage, database: str) -> None:
    """40 schedules for 100 s, and after each third step a QueueActor that knows nothing of the one before it."""
    chance = Random(7)
    plans = {f"s{n}": 1.0 + n % 5 for n in range(40)}
    begun = float(int(NOW))
    now, reigns = begun, 0
    while now < begun + 100:
        core = Core(CoreSettings(), reigns)
        events: list[Any] = [
            await storage.load({}, AGING),
            SchedulesChanged(0, {name: _schedule(name, every_s) for name, every_s in plans.items()}, is_all=True),
        ]
        for _ in range(chance.randint(1, 6)):
            decision = core.step(events, now)
            fate = chance.choice(["known", "known", "known", "lost", "unknown", "died"])
            if fate == "lost":
                break  # it died before the commit
            batch = build(decision.writes, now)
            await storage.commit(batch, [], False)
            if fate == "unknown":
                await storage.commit(batch, [], True)
            if fate == "died":
                break  # it died after the commit, and told nobody
            now += chance.choice([0.3, 1.0, 2.5])
            events = []
        reigns += 1
        now += chance.choice([0.0, 1.0, 4.0])
    core = Core(CoreSettings(), reigns)
    all_of_them = {name: _schedule(name, every_s) for name, every_s in plans.items()}
    decision = core.step([await storage.load({}, AGING), SchedulesChanged(0, all_of_them, is_all=True)], now)
    await storage.commit(build(decision.writes, now), [], False)

    rows = query(database, "SELECT schedule, extract(epoch FROM due_at)::float8, task_id FROM asyncproc.tick")
    assert reigns > 10
    assert set(Counter((name, at) for name, at, _ in rows).values()) == {1}
    assert {task.bytes for _, _, task in rows} == live(database).keys()
    first = {name: min(at for of, at, _ in rows if of == name) for name in plans}
    for name, every_s in plans.items():
        expected = {first[name] + n * every_s for n in range(int((now - first[name]) // every_s) + 1)}
        assert {at for of, at, _ in rows if of == name} == expected
        assert first[name] <= begun + 10


def _schedule(name: str, every_s: float) -> Schedule:
    options = a_task(State.QUEUED).options
    return Schedule(name, Every(every_s), options, b"{}", Overlap.ALLOW, CatchUp.ALL, stamp=str(every_s))
