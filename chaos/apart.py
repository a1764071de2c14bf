"""The cycle of a QueueActor without Ray, on a clock that runs faster: what `chaos.ticks --apart` kills."""

import asyncio
import sys
from typing import Final

from asyncproc.clock import wall_now
from asyncproc.core.events import Event, SchedulesChanged
from asyncproc.core.retry import constant
from asyncproc.core.schedule import CatchUp, Overlap, Schedule
from asyncproc.core.settings import CoreSettings
from asyncproc.core.step import Core
from asyncproc.core.task import Options
from asyncproc.cron import Every
from asyncproc.storage.batch import build
from asyncproc.storage.cycle import Storage

BEGAN: Final = 1_800_000_000.0
_PAGE_BYTES: Final = 1 << 20
_AGING_S: Final = 60.0


async def reign(conninfo: str, anchor: float, speed: float, schedules: int) -> None:
    """For ever. Takes over from whoever reigned before, and goes on from what the tables say."""

    def now() -> float:
        return BEGAN + (wall_now() - anchor) * speed

    storage = Storage(conninfo, _PAGE_BYTES)
    await storage.take_over()
    core = Core(CoreSettings(), storage.epoch)
    plan = {name: _schedule(name) for name in (f"tick-{number}" for number in range(schedules))}
    events: list[Event] = [await storage.load({}, _AGING_S), SchedulesChanged(0, plan, is_all=True)]
    while True:
        decision = core.step(events, now())
        events = []
        if decision.writes or decision.pages:
            batch = build(decision.writes, now()) if decision.writes else None
            events = list((await storage.commit(batch, decision.pages, False)).pages)
        if not events and decision.wake_at is not None:
            await asyncio.sleep(max(0.0, (decision.wake_at - now()) / speed))


def _schedule(name: str) -> Schedule:
    options = Options("Tick", "default", 0, constant(1, 0.0), f"schedule {name}")
    return Schedule(name, Every(1.0), options, b"{}", Overlap.ALLOW, CatchUp.ALL, stamp="1s")


if __name__ == "__main__":
    asyncio.run(reign(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
