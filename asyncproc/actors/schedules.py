"""The schedules in force: what is stored over what is configured, with the options that their tasks get by now."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import ValidationError

from asyncproc.actors.answers import expect
from asyncproc.actors.inbox import Inbox
from asyncproc.changes import AskTicks, DeleteSchedule, PutSchedule, ScheduleChange
from asyncproc.config import Settings
from asyncproc.core.decision import TicksReply
from asyncproc.core.events import SchedulesChanged, TicksAsked
from asyncproc.core.schedule import MAX_LINE, MAX_SCHEDULES, Schedule
from asyncproc.core.steering import Pause
from asyncproc.errors import QueueDraining, SettingsRefused
from asyncproc.plans import NO_KEYS, Keys, ScheduleSettings, StoredSchedule, settings_of, to_schedule
from asyncproc.registry import Registry, TaskType
from asyncproc.rules import Stored
from asyncproc.storage import schedules
from asyncproc.storage.cycle import Storage

log = logging.getLogger(__name__)

MAX_PAYLOADS: Final = 64 * 1024 * 1024
"""Bytes of the payloads of all schedules: they are in memory all the time."""


@dataclass(frozen=True, slots=True)
class _Known:
    settings: ScheduleSettings
    keys: Keys
    schedule: Schedule


class Scheduling:
    """Called by `Steering` alone, one call after the other."""

    def __init__(
        self,
        settings: Settings,
        types: Mapping[str, TaskType],
        keys: Mapping[str, Keys],
        storage: Storage,
        inbox: Inbox,
        now: Callable[[], float],
    ) -> None:
        self._configured = settings.schedules
        self._configured_keys = keys
        self._registry = Registry(dict(types), settings)
        self._storage = storage
        self._inbox = inbox
        self._now = now
        self._stored: dict[str, StoredSchedule] = {}
        self._known: dict[str, _Known] = {}
        self._draining: Mapping[str, float] = {}

    async def load(self, rules: Stored) -> SchedulesChanged:
        """Learn what is stored when a reign begins. Raises `StorageUnavailable`."""
        self._registry.obey(rules)
        self._draining = rules.draining
        self._stored = await self._storage.between(schedules.stored)
        self._known.clear()
        for name in {**self._configured, **self._stored}:
            self._learn(name)
        return SchedulesChanged(0, {name: known.schedule for name, known in self._known.items()}, is_all=True)

    async def obey(self, rules: Stored) -> None:
        """Other rules hold: tasks may get other options."""
        self._registry.obey(rules)
        self._draining = rules.draining
        changed: dict[str, Schedule | None] = {}
        for name, known in self._known.items():
            options = self._registry.scheduled(name, known.settings, known.keys)
            if options != known.schedule.options:
                changed[name] = schedule = replace(known.schedule, options=options)
                self._known[name] = replace(known, schedule=schedule)
        await self._tell(changed)

    async def catch_up(self) -> None:
        """What is in force must be what is stored. Raises `StorageUnavailable`."""
        before, self._stored = self._stored, await self._storage.between(schedules.stored)
        names = [name for name in {**before, **self._stored} if before.get(name) != self._stored.get(name)]
        await self._tell({name: self._learn(name) for name in names})

    async def change(self, asked: ScheduleChange) -> None:
        """Returns once it is in force. Raises `SettingsRefused` and `StorageUnavailable`."""
        self._check(asked)
        is_done, stored = await self._storage.between(schedules.change, asked, self._now())
        name = asked.name
        if stored is None:
            self._stored.pop(name, None)
        else:
            self._stored[name] = stored
        await self._tell({name: self._learn(name)})
        # One whose answer was lost is asked for again.
        if isinstance(asked, PutSchedule) and not is_done and not _is_stored(asked, stored):
            if asked.version:
                raise SettingsRefused("stale", f"schedule {name} was changed by somebody else meanwhile: try again")
            raise SettingsRefused("exists", f"schedule {name} exists already: PATCH changes it")

    async def ask(self, asked: AskTicks) -> None:
        """Returns once the tasks are committed. Raises `SettingsRefused`, `QueueDraining` and `StorageUnavailable`."""
        done = await self._storage.between(schedules.decided, [tick.task_id for tick in asked.ticks])
        ticks = [tick for tick in asked.ticks if tick.task_id not in done]
        if not ticks:
            return
        known = self._known.get(asked.name)
        if known is not None and (queue := known.schedule.options.queue) in self._draining:
            raise QueueDraining((queue,), ())
        reply = expect(await self._inbox.ask(lambda ticket: TicksAsked(ticket, asked.name, ticks)), TicksReply)
        if reply.is_full:
            raise SettingsRefused(
                "full", f"{MAX_LINE} ticks of schedule {asked.name} may wait for the task before them, and no more"
            )
        if not reply.decided:
            raise SettingsRefused("missing", f"there is no schedule {asked.name} in force")

    async def _tell(self, changed: Mapping[str, Schedule | None]) -> None:
        if changed:
            await self._inbox.ask(lambda ticket: SchedulesChanged(ticket, changed))

    def _check(self, asked: ScheduleChange) -> None:
        """Raises `SettingsRefused`."""
        if isinstance(asked, DeleteSchedule) or asked.name in self._configured or asked.name in self._stored:
            return
        if len(self._known) >= MAX_SCHEDULES:
            raise SettingsRefused("full", f"there are {MAX_SCHEDULES} schedules, which is the most: delete some first")
        if isinstance(asked, PutSchedule):
            size = len(asked.document) + sum(len(known.schedule.payload) for known in self._known.values())
            if size > MAX_PAYLOADS:
                raise SettingsRefused("full", f"payloads of schedules have {MAX_PAYLOADS} bytes together at most")

    def _learn(self, name: str) -> Schedule | None:
        """Where it cannot be used it is not in force, and the log says why."""
        configured, stored = self._configured.get(name), self._stored.get(name)
        self._known.pop(name, None)
        if configured is None and (stored is None or not stored.settings):
            return None
        try:
            settings = settings_of(configured, stored)
        except ValidationError as error:
            log.warning("schedule %s is not in force: %s", name, error)
            return None
        self._registry.assume(settings.task_type)
        is_said = stored is not None and stored.settings
        keys = stored.keys if stored is not None and is_said else self._configured_keys.get(name, NO_KEYS)
        options = self._registry.scheduled(name, settings, keys)
        pause: Pause | None = None if stored is None else stored.pause
        schedule = to_schedule(name, settings, pause, options)
        self._known[name] = _Known(settings, keys, schedule)
        return schedule


def _is_stored(asked: PutSchedule, stored: StoredSchedule | None) -> bool:
    wanted = StoredSchedule.of(asked.name, 0, asked.document, None)
    return stored is not None and (stored.settings, stored.keys) == (wanted.settings, wanted.keys)
