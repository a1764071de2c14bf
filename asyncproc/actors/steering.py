"""What operators change while the system runs: stored first, then put in force, then answered."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from asyncproc.actors.inbox import Inbox
from asyncproc.actors.long_works import LongWorks
from asyncproc.actors.schedules import Scheduling
from asyncproc.actors.worker_options import CannotStart, check
from asyncproc.changes import AskTicks, Change, Delete, Put, Resume, RuleChange, ScheduleChange
from asyncproc.config import DEFAULT, Settings
from asyncproc.core.events import Outcome, RulesChanged, SchedulesChanged
from asyncproc.core.steering import Rules
from asyncproc.core.task import NewTask, Options
from asyncproc.errors import AsyncprocError, EpochLost, QueueDraining, SettingsRefused, StorageUnavailable
from asyncproc.pool_precedence import made_of, pools_of
from asyncproc.pool_settings import PoolRuleSettings, PoolSettings
from asyncproc.precedence import draws, rate_settings, rules_of, with_stored
from asyncproc.rules import QueueRuleSettings, Stored, TypeRuleSettings
from asyncproc.storage import steering
from asyncproc.storage.cycle import Storage

log = logging.getLogger(__name__)

MAX_STORED: Final = 5_000
"""Queues, types and rate limits that have stored settings: each change reads all of them, in a tenth of a second."""
MAX_PAUSES: Final = 1_000
MAX_POOLS: Final = 100
MAX_CHANGES: Final = 64
"""Changes that wait for their turn."""
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 2.0


class _Asked(NamedTuple):
    change: Change
    done: "asyncio.Future[None]"


class Steering:
    """The settings in force. Changes are carried out one after the other, by one task."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        inbox: Inbox,
        works: LongWorks,
        schedules: Scheduling,
        now: Callable[[], float],
        obey_pools: Callable[[Mapping[str, PoolSettings]], None],
    ) -> None:
        """`obey_pools` is told what pools there are."""
        self._settings = settings
        self._storage = storage
        self._inbox = inbox
        self._works = works
        self._schedules = schedules
        self._now = now
        self._obey_pools = obey_pools
        self._stored = Stored()
        self._asked: asyncio.Queue[_Asked] = asyncio.Queue(MAX_CHANGES)
        self.rules = Rules()
        self.schedules = SchedulesChanged(0, {})
        """All of them, when the reign began."""

    @property
    def stored(self) -> Stored:
        """What operators set, as far as it is in force."""
        return self._stored

    async def load(self) -> None:
        """Learn what is stored when a reign begins. Raises `StorageUnavailable`."""
        self._stored = await self._storage.between(steering.stored)
        self.rules = rules_of(self._settings, self._stored)
        self.schedules = await self._schedules.load(self._stored)
        self._obey_pools(pools_of(self._settings, self._stored))
        for purge in await self._storage.between(steering.purges):
            self._works.resume(purge)

    async def change(self, change: Change) -> None:
        """Returns once it is in force. Raises `SettingsRefused`, and `StorageUnavailable` where nobody knows."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._asked.put_nowait(_Asked(change, done))
        except asyncio.QueueFull:
            raise SettingsRefused("busy", f"{MAX_CHANGES} changes wait for their turn: try again later") from None
        await done

    def admit(self, tasks: Iterable[NewTask]) -> None:
        """Raises `QueueDraining` where some of these are for queues that take no new tasks."""
        draining = self._stored.draining
        if not draining:
            return
        shut_out = {task[0]: task[2].queue for task in tasks if task[2].queue in draining}
        if shut_out:
            raise QueueDraining(tuple(sorted(set(shut_out.values()))), tuple(shut_out))

    def completed(self, outcomes: list[Outcome]) -> list[Outcome]:
        """With children that go by what is stored, which their workers do not know."""
        if not (self._stored.queues or self._stored.types) or not any(outcome[7] for outcome in outcomes):
            return outcomes
        known: dict[int, Options] = {}

        def stored(child: NewTask) -> NewTask:
            task_id, payload, options, delay_s, terms = child
            found = known.get(id(options))
            if found is None:
                found = known[id(options)] = with_stored(options, self._stored)
            return (task_id, payload, found, delay_s, terms)

        return [(*outcome[:7], [stored(child) for child in outcome[7]]) for outcome in outcomes]

    async def run(self) -> None:
        """Carry out what is asked for until cancelled."""
        while True:
            change, done = await self._asked.get()
            try:
                await self._carry_out(change)
            except EpochLost:
                raise
            except StorageUnavailable as error:
                _answer(done, error)
                await self._catch_up()
            except AsyncprocError as error:
                _answer(done, error)
            else:
                _answer(done, None)

    async def _carry_out(self, change: Change) -> None:
        if isinstance(change, AskTicks):
            await self._schedules.ask(change)
        elif isinstance(change, ScheduleChange):
            await self._schedules.change(change)
        else:
            await self._change_rules(change)

    async def _change_rules(self, change: RuleChange) -> None:
        self._check(change)
        changed, stored = await self._storage.between(steering.change, change, self._now())
        await self._adopt(stored)
        if not changed and isinstance(change, Put) and not _is_stored(change, stored):
            raise SettingsRefused(
                "exists", f"{_NOUNS[change.kind]} {change.name} has stored settings already: PATCH changes them"
            )

    async def _catch_up(self) -> None:
        """The change may have been committed: what is in force must be what is stored."""
        wait_s = _FIRST_RETRY_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_RETRY_S)
            try:
                await self._adopt(await self._storage.between(steering.stored))
                await self._schedules.catch_up()
            except StorageUnavailable:
                continue
            return

    async def _adopt(self, stored: Stored) -> None:
        if stored.version == self._stored.version:
            return
        before, self._stored = self.rules, stored
        self.rules = rules = rules_of(self._settings, stored)
        await self._inbox.ask(lambda ticket: RulesChanged(ticket, rules))
        await self._schedules.obey(stored)
        self._obey_pools(pools_of(self._settings, stored))
        for queue in {*before.queues, *rules.queues}:
            if before.queue(queue).aging_s != rules.queue(queue).aging_s:
                self._works.rerank(queue, rules.queue(queue).aging_s)

    def _check(self, change: RuleChange) -> None:
        """Raises `SettingsRefused`."""
        stored = self._stored
        if isinstance(change, Put):
            known = {**stored.queues, **stored.types, **stored.rates, **stored.pools}
            number = len(stored.queues) + len(stored.types) + len(stored.rates) + len(stored.pools)
            if number >= MAX_STORED and change.name not in known:
                raise SettingsRefused("full", f"{number} settings are stored, which is the most: delete some first")
            self._check_names(change)
            if change.kind == "pool":
                self._check_pool(change)
        elif isinstance(change, Delete) and change.kind == "rate":
            self._check_unused(change.name)
        elif isinstance(change, Delete) and change.kind == "pool":
            self._check_unnamed(change.name)
        elif len(stored.pauses) + len(stored.draining) >= MAX_PAUSES and not isinstance(change, Delete | Resume):
            raise SettingsRefused("full", f"{MAX_PAUSES} queues and types are paused or drained: resume some first")

    def _check_names(self, put: Put) -> None:
        if put.kind == "queue":
            pool = QueueRuleSettings.model_validate_json(put.document).pool
            pools = pools_of(self._settings, self._stored)
            if pool is not None and pool not in pools:
                raise SettingsRefused(
                    "invalid", f"pool: there is no pool {pool!r}: known are {', '.join(sorted(pools))}"
                )
        elif put.kind == "type":
            rates = rate_settings(self._settings, self._stored)
            for name in TypeRuleSettings.model_validate_json(put.document).rate_limits or ():
                if name not in rates:
                    known = ", ".join(sorted(rates)) or "none"
                    raise SettingsRefused(
                        "invalid", f"rateLimits.{name}: there is no such rate limit: known are {known}"
                    )

    def _check_pool(self, put: Put) -> None:
        """No queue may have two pools."""
        said = PoolRuleSettings.model_validate_json(put.document)
        if len(self._stored.pools) >= MAX_POOLS and put.name not in self._stored.pools:
            raise SettingsRefused("full", f"{MAX_POOLS} pools are stored, which is the most: delete some first")
        try:
            check(made_of(said))
        except CannotStart as error:
            raise SettingsRefused("invalid", f"Ray does not take workers of this kind: {error}") from error
        for other, pool in pools_of(self._settings, self._stored).items():
            twice = sorted({*pool.queues} & {*(said.queues or ())}) if other != put.name else []
            if twice:
                raise SettingsRefused(
                    "invalid", f"queues: {', '.join(twice[:10])} is served by pool {other}: take it from there first"
                )

    def _check_unnamed(self, name: str) -> None:
        """A pool that goes may not be the one that a queue names."""
        if name == DEFAULT or name in self._settings.pools:
            return
        users = sorted(queue for queue, rules in self._stored.queues.items() if rules.pool == name)
        if users:
            raise SettingsRefused(
                "used", f"pool {name} serves {', '.join(users[:10])}: give these queues another pool first"
            )

    def _check_unused(self, rate: str) -> None:
        if rate in self._settings.rate_limits:
            return
        users = sorted(name for name, units in draws(self._settings, self._stored).items() if rate in units)
        if users:
            raise SettingsRefused(
                "used", f"rate limit {rate} is drawn from by {', '.join(users[:10])}: change them first"
            )


def _is_stored(put: Put, stored: Stored) -> bool:
    """A creation whose answer was lost is asked for again."""
    if put.kind == "pool":
        return stored.pools.get(put.name) == PoolRuleSettings.model_validate_json(put.document)
    return stored.queues.get(put.name) == QueueRuleSettings.model_validate_json(put.document)


_NOUNS: Final = {"queue": "queue", "type": "task type", "rate": "rate limit", "pool": "pool"}


def _answer(done: "asyncio.Future[None]", error: Exception | None) -> None:
    """Whoever asked may be gone."""
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
