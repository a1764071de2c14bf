"""Limits, rates, fairness and pauses: the rules of a history, and whether what starts keeps to them."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Final

from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import Overflow, Pause, QueueRules, RateLimit, Rules, TypeRules
from asyncproc.core.task import Options, Task, TaskId
from simulation.chance import Chance
from simulation.ledger import name
from simulation.rules import Rule, Violation
from simulation.table import Table

CONCURRENCY_KEYS: Final = ("", "", "one", "two")
SHAPES: Final = ("", "", "gpu1")
FAIRNESS_KEYS: Final = ("", "ada", "bob")


def some_rules(chance: Chance, settings: CoreSettings, now: float, rates: Mapping[str, RateLimit]) -> Rules:
    """The rates stay as they are: what was filled at another rate cannot be told from outside."""
    queues = {
        name: QueueRules(
            rules.weight,
            rules.aging_s,
            max_running=chance.choice((None, None, 1, 2)),
            max_running_per_key=chance.choice((None, 2)),
            fairness_weights=chance.choice(({}, {"ada": 3.0})),
            max_waiting=chance.choice((None, None, 3, 8)),
            max_waiting_per_key=chance.choice((None, None, 1)),
            overflow=chance.choice((Overflow.WAIT, Overflow.CANCEL_OLDEST, Overflow.CANCEL_NEWEST, Overflow.REJECT)),
        )
        for name, rules in [*settings.queues.items(), ("video", settings.default_rules)]
    }
    types = {
        "Long": TypeRules(chance.choice((None, 1, 3))),
        "Short": TypeRules(None, chance.choice(((), (("api", 1.0),), (("api", 2.0),)))),
    }
    return Rules(queues, types, rates, _some_pauses(chance, now), settings.default_rules)


def some_rates(chance: Chance) -> dict[str, RateLimit]:
    return {"api": RateLimit(chance.choice((2.0, 10.0)), chance.choice((1.0, 3.0)))}


def _some_pauses(chance: Chance, now: float) -> tuple[Pause, ...]:
    scope, paused = chance.choice((("", ""), ("", ""), ("all", ""), ("queue", "mail"), ("type", "Long")))
    return (Pause(scope, paused, until=now + chance.choice((0.5, 3.0))),) if scope else ()


class Turnstile:
    """Counts what starts by itself, from the table and the rules that the core was told."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[float, float]] = {}

    def started(self, started: Container[TaskId], table: Table, rules: Rules, now: float) -> None:
        """After the commit."""
        running = Counter(
            limit for row in table.live.values() if row.state is State.RUNNING for limit in _limits(rules, row.options)
        )
        for row in table.live.values():
            if row.id not in started or row.state is not State.RUNNING:
                continue
            if is_paused(rules, row.options, now):
                raise Violation(Rule.GATES, f"{name(row.id)} starts while it is paused")
            for limit in _limits(rules, row.options):
                if running[limit] > limit[-1]:
                    raise Violation(Rule.GATES, f"{name(row.id)} starts as number {running[limit]} of {limit}")
            self._draw(row, rules, now)

    def _draw(self, row: Task, rules: Rules, now: float) -> None:
        for rate, units in rules.types.get(row.options.type, TypeRules()).draws:
            bucket = rules.rates[rate]
            level, at = self._levels.get(rate, (bucket.burst, now))
            level = min(bucket.burst, level + (now - at) * bucket.per_s)
            if level < min(units, bucket.burst) - 1e-6:
                raise Violation(Rule.GATES, f"{name(row.id)} starts with {level:.3f} in {rate}")
            self._levels[rate] = (level - units, now)


def blocked(rows: Iterable[Task], table: Table, rules: Rules, now: float) -> set[TaskId]:
    """Those that wait for a limit, a rate, or the end of a pause, as far as can be told from outside."""
    running = Counter(
        limit for row in table.live.values() if row.state is State.RUNNING for limit in _limits(rules, row.options)
    )
    return {
        row.id
        for row in rows
        if is_paused(rules, row.options, now)
        or rules.types.get(row.options.type, TypeRules()).draws
        or any(running[limit] >= limit[-1] for limit in _limits(rules, row.options))
    }


def is_paused(rules: Rules, options: Options, now: float) -> bool:
    names = {"all": "", "queue": options.queue, "type": options.type}
    return any(pause.name == names[pause.scope] and not 0 < pause.until <= now for pause in rules.pauses)


def _limits(rules: Rules, options: Options) -> list[tuple[str, str, str, int]]:
    queue, own = rules.queue(options.queue), rules.types.get(options.type, TypeRules())
    limits: list[tuple[str, str, str, int]] = []
    if queue.max_running is not None:
        limits.append(("queue", options.queue, "", queue.max_running))
    if options.concurrency_key:
        limits.append(("key", options.queue, options.concurrency_key, queue.max_running_per_key or 1))
    if own.max_running is not None:
        limits.append(("type", options.type, "", own.max_running))
    return limits
