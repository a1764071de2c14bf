"""Which pools there are, and what holds for each: what is stored comes before the configuration."""

from collections.abc import Mapping
from typing import Any, Final

from asyncproc.config import DEFAULT, QueueSettings, Settings
from asyncproc.core.origin import Origin
from asyncproc.core.shape import base_and_shape, shape_of
from asyncproc.pool_settings import PoolRuleSettings, PoolSettings, WorkerRange
from asyncproc.precedence import Won
from asyncproc.rules import Stored

_CODE: Final = PoolRuleSettings.model_construct(
    queues=[],
    workers=1,
    target_wait=5.0,
    idle_after=30.0,
    concurrency=1,
    num_cpus=0.0,
    num_gpus=0.0,
    resources={},
    labels={},
    runtime_env={},
    environment={},
)
"""What holds where nobody says anything."""


def pool_settings(settings: Settings, stored: Stored, name: str) -> dict[str, Won]:
    """What holds for a pool, by the names of its fields."""
    configured = _default(settings.queue) if name == DEFAULT else settings.pools.get(name)
    chain = ((Origin.STORED, stored.pools.get(name)), (Origin.CONFIG, configured))
    return {field: _first(chain, field) for field in PoolRuleSettings.model_fields}


def pools_of(settings: Settings, stored: Stored) -> dict[str, PoolSettings]:
    """All pools that somebody has named, the default one among them."""
    names = {DEFAULT: None, **settings.pools, **stored.pools}
    return {name: _made(pool_settings(settings, stored, name)) for name in names}


def made_of(said: PoolRuleSettings) -> PoolSettings:
    """What holds where nobody says more than this."""
    return _made({field: _first(((Origin.STORED, said),), field) for field in PoolRuleSettings.model_fields})


def of_shape(settings: Settings, pools: Mapping[str, PoolSettings], name: str) -> PoolSettings | None:
    """The pool of a shape: like the one that it belongs to, but for what its tasks ask. None where it belongs to
    none, or no shape is called so."""
    base, text = base_and_shape(name)
    pool, shapes = pools.get(base), settings.shapes
    if pool is None:
        return None
    try:
        shape = shape_of(text)
    except ValueError:
        return None
    return PoolSettings(
        least=0,
        most=shapes.max_workers,
        target_wait_s=shapes.target_wait,
        idle_after_s=shapes.idle_after,
        num_cpus=shape.cpus,
        num_gpus=shape.gpus,
        memory=shape.memory or None,
        resources=dict(shape.custom),
        labels=pool.labels,
        runtime_env=pool.runtime_env,
        environment=pool.environment,
        recycle_after=pool.recycle_after,
        recycle_above=pool.recycle_above,
    )


def _default(queue: QueueSettings) -> PoolRuleSettings:
    return PoolRuleSettings.model_construct(
        queues=[DEFAULT],
        workers=queue.worker_pool_size,
        concurrency=queue.concurrency,
        recycle_after=queue.recycle_after,
        recycle_above=queue.recycle_above,
    )


def _first(chain: tuple[tuple[Origin, PoolRuleSettings | None], ...], field: str) -> Won:
    for origin, said in chain:
        if said is not None and (value := getattr(said, field)) is not None:
            return Won(value, origin)
    return Won(getattr(_CODE, field), Origin.CODE)


def _made(won: Mapping[str, Won]) -> PoolSettings:
    value: dict[str, Any] = {field: found.value for field, found in won.items()}
    workers = value["workers"]
    least, most = (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)
    return PoolSettings(
        queues=tuple(value["queues"]),
        least=least,
        most=most,
        target_wait_s=value["target_wait"],
        idle_after_s=value["idle_after"],
        concurrency=value["concurrency"],
        num_cpus=value["num_cpus"],
        num_gpus=value["num_gpus"],
        memory=value["memory"],
        resources=value["resources"],
        labels=value["labels"],
        runtime_env=value["runtime_env"],
        environment=value["environment"],
        recycle_after=value["recycle_after"],
        recycle_above=value["recycle_above"],
    )
