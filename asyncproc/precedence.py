"""Which value holds where several say one: the task's own, then what is stored, the configuration, the code.

At each of these a type speaks before a queue. The `queue` section of the configuration comes last but the code's
constants: it is what holds where nobody says anything of a queue or a type.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from asyncproc.config import DEFAULT, QueueSettings, RetentionSettings, Settings
from asyncproc.core.origin import Origin
from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import FINAL, State
from asyncproc.core.steering import Overflow, QueueRules, RateLimit, Rules, TypeRules
from asyncproc.core.task import Options, TimeLimits
from asyncproc.rules import UNLIMITED, QueueRuleSettings, RateLimitSettings, Stored, TaskRuleSettings
from asyncproc.sections import DAY_S, BackOffSettings, Section


class Won(NamedTuple):
    value: Any
    origin: Origin


class BackOff(NamedTuple):
    base_s: float
    factor: float
    cap_s: float
    jitter: float


class TaskValues(NamedTuple):
    """What somebody says of tasks; None is nothing."""

    priority: int | None = None
    max_task_retry: int | None = None
    back_off: BackOff | None = None
    timeout_s: float | None = None
    soft_timeout_s: float | None = None

    @classmethod
    def of(cls, rules: TaskRuleSettings | None) -> "TaskValues":
        if rules is None:
            return NOTHING
        back_off = None if rules.back_off is None else back_off_of(rules.back_off)
        return cls(rules.priority, rules.max_task_retry, back_off, rules.timeout, rules.soft_timeout)


class TaskDefaults(NamedTuple):
    """What a task is enqueued with where it says nothing, each value with its origin."""

    priority: Won
    max_task_retry: Won
    back_off: Won
    timeout_s: Won
    soft_timeout_s: Won

    @property
    def origins(self) -> str:
        """Where the values are from: a letter for each, in their order."""
        return "".join(won.origin.letter for won in self)

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy(self.max_task_retry.value + 1, *self.back_off.value)

    @property
    def limits(self) -> TimeLimits:
        return TimeLimits(self.timeout_s.value, self.soft_timeout_s.value)


NOTHING: Final = TaskValues()
_CODE: Final = QueueRuleSettings.model_construct(
    weight=1,
    aging=60.0,
    priority=0,
    max_task_retry=3,
    back_off=BackOffSettings(),
    timeout=0.0,
    soft_timeout=0.0,
    pool=DEFAULT,
    max_running=UNLIMITED,
    max_running_per_key=1,
    fairness_weights={},
    max_waiting=UNLIMITED,
    max_waiting_per_key=UNLIMITED,
    overflow=Overflow.REJECT,
    retention_succeeded=7 * DAY_S,
    retention_failed=30 * DAY_S,
    retention_cancelled=7 * DAY_S,
)
"""What holds where nobody says anything."""
_TYPE_CODE: Final = {"max_running": UNLIMITED, "rate_limits": {}}


def back_off_of(back_off: BackOffSettings) -> BackOff:
    return BackOff(back_off.base, back_off.factor, back_off.cap, back_off.jitter)


def _as_section(back_off: BackOff) -> BackOffSettings:
    """Not checked: the code of a type may say what the configuration may not, such as no wait at all."""
    base_s, factor, cap_s, jitter = back_off
    return BackOffSettings.model_construct(base=base_s, factor=factor, cap=cap_s, jitter=jitter)


def task_defaults(
    settings: Settings, stored: Stored, type_name: str, queue: str, own: TaskValues = NOTHING
) -> TaskDefaults:
    """`own` is what the code of the type says."""
    chain = (
        (Origin.STORED, TaskValues.of(stored.types.get(type_name))),
        (Origin.STORED, TaskValues.of(stored.queues.get(queue))),
        (Origin.CONFIG, TaskValues.of(settings.types.get(type_name))),
        (Origin.CONFIG, TaskValues.of(settings.queues.get(queue))),
        (Origin.CODE, own),
        (Origin.CONFIG, TaskValues.of(_general(settings.queue))),
        (Origin.CODE, TaskValues.of(_CODE)),
    )
    return TaskDefaults(*(_first(chain, field) for field in TaskValues._fields))


def with_stored(options: Options, stored: Stored) -> Options:
    """As if whoever enqueues by these options had known what is stored: but for what the task says itself that goes
    before all others. A worker has no database, and enqueues children by the rest."""
    said = (TaskValues.of(stored.types.get(options.type)), TaskValues.of(stored.queues.get(options.queue)))
    found = {
        field: value
        for field, letter in zip(TaskValues._fields, options.origins, strict=False)
        if letter != Origin.TASK.letter and (value := next(_set(said, field), None)) is not None
    }
    if not found:
        return options
    retry, limits = options.retry, options.limits
    if "max_task_retry" in found:
        retry = retry._replace(max_attempts=found["max_task_retry"] + 1)
    if "back_off" in found:
        retry = RetryPolicy(retry.max_attempts, *found["back_off"])
    limits = TimeLimits(found.get("timeout_s", limits.timeout_s), found.get("soft_timeout_s", limits.soft_timeout_s))
    origins = "".join(
        Origin.STORED.letter if field in found else letter
        for field, letter in zip(TaskValues._fields, options.origins, strict=False)
    )
    priority = found.get("priority", options.priority)
    return options._replace(priority=priority, retry=retry, limits=limits, origins=origins)


def _set(said: Iterable[object], field: str) -> Iterator[Any]:
    return (value for values in said if (value := getattr(values, field, None)) is not None)


def queue_settings(settings: Settings, stored: Stored, name: str) -> dict[str, Won]:
    """What holds for a queue, by the names of its fields."""
    chain = [
        (Origin.STORED, stored.queues.get(name)),
        (Origin.CONFIG, settings.queues.get(name)),
        _pool(settings, stored, name),
        (Origin.CONFIG, _general(settings.queue)),
        (Origin.CONFIG, _general_retention(settings.retention)),
        (Origin.CODE, _CODE),
    ]
    return {field: _first(chain, field) for field in QueueRuleSettings.model_fields}


def type_settings(
    settings: Settings, stored: Stored, name: str, queue: str, own: TaskValues = NOTHING
) -> dict[str, Won]:
    """What holds for tasks of a type that go to `queue`, where they go if they name no other."""
    chain = [(Origin.STORED, stored.types.get(name)), (Origin.CONFIG, settings.types.get(name))]
    limits = {
        field: next((Won(value, origin) for origin, value in _said(chain, field)), Won(code, Origin.CODE))
        for field, code in _TYPE_CODE.items()
    }
    tasks = task_defaults(settings, stored, name, queue, own)
    return {
        "priority": tasks.priority,
        "max_task_retry": tasks.max_task_retry,
        "back_off": Won(_as_section(tasks.back_off.value), tasks.back_off.origin),
        "timeout": tasks.timeout_s,
        "soft_timeout": tasks.soft_timeout_s,
        **limits,
    }


def draws(settings: Settings, stored: Stored) -> dict[str, Mapping[str, float]]:
    """Task types that draw from rate limits, with the units that each of their tasks takes of each."""
    return {name: dict(rules.draws) for name, rules in rules_of(settings, stored).types.items() if rules.draws}


def rules_of(settings: Settings, stored: Stored) -> Rules:
    """All that the core is to go by."""
    rates = {**settings.rate_limits, **stored.rates}
    general = _general(settings.queue)
    return Rules(
        queues={
            name: _queue_rules(stored.queues.get(name), settings.queues.get(name), general)
            for name in {**settings.queues, **stored.queues}
        },
        types={name: _type_rules(settings, stored, name) for name in {**settings.types, **stored.types}},
        rates={name: RateLimit(rate.per_s, rate.burst_units) for name, rate in rates.items()},
        pauses=stored.pauses,
        default=_queue_rules(None, None, general),
        pool_of=pool_of(settings, stored),
        draining=frozenset(stored.draining),
    )


def pool_of(settings: Settings, stored: Stored) -> dict[str, str]:
    """Queue to pool, for the queues that a pool names. What is stored of a pool comes before its configuration."""
    named = {name: pool.queues for name, pool in settings.pools.items()}
    named |= {name: pool.queues for name, pool in stored.pools.items() if pool.queues is not None}
    served = {queue: name for name, queues in named.items() for queue in queues or ()}
    return {**dict.fromkeys(settings.pool_of(), DEFAULT), **served}


def kept_by_queue(settings: Settings, stored: Stored) -> dict[str, dict[State, float]]:
    """For how many seconds finished tasks of these queues are kept, where somebody says so of the queue."""
    kept: dict[str, dict[State, float]] = {}
    for name in {**settings.queues, **stored.queues}:
        said = (stored.queues.get(name), settings.queues.get(name))
        values = {state: next(_set(said, f"retention_{state}"), None) for state in State if state in FINAL}
        kept[name] = {state: value for state, value in values.items() if value is not None}
    return kept


def rate_settings(settings: Settings, stored: Stored) -> dict[str, tuple[RateLimitSettings, Origin]]:
    """The rate limits that there are."""
    found = {name: (rate, Origin.CONFIG) for name, rate in settings.rate_limits.items()}
    return found | {name: (rate, Origin.STORED) for name, rate in stored.rates.items()}


def _queue_rules(
    stored: QueueRuleSettings | None, configured: QueueRuleSettings | None, general: QueueRuleSettings
) -> QueueRules:
    said = [rules for rules in (stored, configured) if rules is not None]

    def value(field: str) -> Any:
        values = (getattr(rules, field) for rules in (*said, general, _CODE))
        return next(value for value in values if value is not None)

    return QueueRules(
        weight=value("weight"),
        aging_s=value("aging"),
        # Without one it is the pool whose configuration names the queue.
        pool=next((rules.pool for rules in said if rules.pool is not None), None),
        max_running=value("max_running") or None,
        max_running_per_key=value("max_running_per_key"),
        fairness_weights=value("fairness_weights"),
        max_waiting=value("max_waiting") or None,
        max_waiting_per_key=value("max_waiting_per_key") or None,
        overflow=value("overflow"),
    )


def _type_rules(settings: Settings, stored: Stored, name: str) -> TypeRules:
    won = type_settings(settings, stored, name, DEFAULT)
    return TypeRules(won["max_running"].value or None, tuple(won["rate_limits"].value.items()))


def _general(queue: QueueSettings) -> QueueRuleSettings:
    """What the `queue` section says of all queues."""
    said = queue.model_fields_set
    return QueueRuleSettings.model_construct(
        aging=queue.aging if "aging" in said else None,
        max_task_retry=queue.max_task_retry if "max_task_retry" in said else None,
        back_off=queue.back_off if "back_off" in said else None,
        timeout=queue.timeout if "timeout" in said else None,
    )


def _general_retention(retention: RetentionSettings) -> QueueRuleSettings:
    """What the `retention` section says of all queues."""
    said = {f"retention_{state}": getattr(retention, state) for state in retention.model_fields_set & FINAL}
    return QueueRuleSettings.model_construct(**said)


def _pool(settings: Settings, stored: Stored, queue: str) -> tuple[Origin, QueueRuleSettings]:
    """The pool that names the queue."""
    pool, configured = pool_of(settings, stored).get(queue), settings.pool_of().get(queue)
    origin = Origin.CONFIG if pool == configured else Origin.STORED
    return origin, QueueRuleSettings.model_construct(pool=pool)


def _first(chain: Sequence[tuple[Origin, Any]], field: str) -> Won:
    return next(Won(value, origin) for origin, value in _said(chain, field))


def _said(chain: Sequence[tuple[Origin, Any]], field: str) -> list[tuple[Origin, Any]]:
    values = ((origin, getattr(said, field, None)) for origin, said in chain)
    return [(origin, value) for origin, value in values if value is not None]


def shown(won: Mapping[str, Won], kind: type[Section]) -> dict[str, dict[str, Any]]:
    """The settings as REST has them: by their keys, each with its value and where that is from."""
    plain = kind.model_construct(**{name: found.value for name, found in won.items()}).model_dump(
        mode="json", by_alias=True
    )
    keys = {name: kind.model_fields[name].alias or name for name in won}
    return {keys[name]: {"value": plain[keys[name]], "from": found.origin} for name, found in won.items()}
