"""What Ray is told of a WorkerActor, and what it has against that."""

from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asyncproc.actors.worker_actor import WorkerActor
from asyncproc.pool_settings import PoolSettings

_CALLS: Final = 100


class CannotStart(Exception):
    """Ray takes no actor of this kind; the text says why."""


def worker_options(kind: PoolSettings, node: str | None = None) -> dict[str, Any]:
    """`node` is where it had best be; without, Ray spreads them."""
    return {
        "lifetime": "detached",
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": _CALLS,
        "num_cpus": kind.num_cpus,
        "num_gpus": kind.num_gpus,
        "memory": kind.memory,
        "resources": dict(kind.resources) or None,
        "label_selector": dict(kind.labels) or None,
        "runtime_env": dict(kind.runtime_env) or None,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD",
        "enable_task_events": False,
    }


def check(kind: PoolSettings) -> None:
    """Raises `CannotStart` for what Ray refuses without trying it."""
    try:
        ray.remote(WorkerActor).options(**worker_options(kind))
    except Exception as error:
        # Each of Ray's checks has errors of its own: whatever it raises is the answer.
        raise CannotStart(_line(error)) from error


def make(name: str, namespace: str, kind: PoolSettings, node: str | None, *arguments: object) -> Any:
    """The handle of a new actor. Raises `CannotStart`."""
    try:
        return (
            ray.remote(WorkerActor)
            .options(name=name, namespace=namespace, **worker_options(kind, node))
            .remote(*arguments)
        )
    except Exception as error:
        # As above; a name that is taken, or a Ray that does not answer, too.
        raise CannotStart(_line(error)) from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]
