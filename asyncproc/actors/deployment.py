"""What one running system is made from, and how its QueueActor is found or made."""

import asyncio
import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError

from asyncproc.config import Settings
from asyncproc.errors import ConfigError
from asyncproc.plans import Keys
from asyncproc.registry import TaskType, from_settings

log = logging.getLogger(__name__)

QUEUE_NAME: Final = "QueueActor"
WORKER_PREFIX: Final = "WorkerActor:"
MAX_CALLS: Final = 20_000
"""Open calls of one actor: each worker holds two polls for seconds."""
LOOKUP_TIMEOUT_S: Final = 5.0
DEPLOY_TIMEOUT_S: Final = 60.0
RETRY_S: Final = 0.2
ON_THE_HEAD: Final = {"node:__internal_head__": 0.001}
"""Ray's own mark of the head node. Whatever holds the way into the database stays there: without the head nothing runs
anyway, and the loss of any other node leaves it alone."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that QueueActor and workers are started with."""

    settings: Settings
    start_dir: str
    types: Mapping[str, TaskType]
    """What the code of the task types says of their tasks; the code itself is not in there."""
    fingerprint: str
    """Changes with the configuration, this package and the task modules; actors of another one are replaced."""
    schedule_keys: Mapping[str, Keys] = field(default_factory=dict)
    """By schedule of the configuration, the keys that the code of its type makes of its payload."""

    @classmethod
    def of(cls, settings: Settings, start_dir: Path) -> "Deployment":
        """Raises `ConfigError` where no database is named, and `RegistryError`."""
        if settings.storage.conninfo() is None:
            raise ConfigError(
                (
                    "storage.url is not set: name a Postgres by storage.url or storage.host, or start with"
                    " `asyncproc up`, which brings its own",
                )
            )
        registry = from_settings(settings, start_dir)
        keys = {name: registry.schedule_keys(schedule) for name, schedule in settings.schedules.items()}
        return cls(settings, str(start_dir), registry.declared(), _fingerprint(settings, start_dir), keys)

    @property
    def conninfo(self) -> str:
        return self.settings.storage.conninfo() or ""

    @property
    def namespace(self) -> str:
        return self.settings.ray.namespace


def _fingerprint(settings: Settings, start_dir: Path) -> str:
    digest = hashlib.sha256(version("asyncproc").encode())
    digest.update(repr(settings).encode())
    digest.update((settings.storage.conninfo() or "").encode())
    digest.update(str(start_dir).encode())
    for name in ("asyncproc", *settings.tasks):
        digest.update(_source(name))
    return digest.hexdigest()[:8]


def _source(module: str) -> bytes:
    """The code below a module's folder, or of its file: what a restarted actor would import."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return b""
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return b"".join(file.read_bytes() for file in files)


class QueueHandle:
    """The way to the QueueActor, looked up again when the one that was known is dead for good.

    With a `deployment` it is made where there is none; without, it must be there already.
    """

    def __init__(self, namespace: str, deployment: Deployment | None = None) -> None:
        self._namespace = namespace
        self._deployment = deployment
        self._actor: Any = None

    async def get(self) -> Any:
        """The Ray handle. Raises `ValueError` where there is none, `TimeoutError` where Ray does not answer."""
        if self._actor is None:
            # Off the loop: the look-up blocks, and hangs while Ray's control store is away.
            find = asyncio.to_thread(self._find)
            self._actor = await asyncio.wait_for(find, LOOKUP_TIMEOUT_S)
        return self._actor

    def forget(self) -> None:
        """The actor behind the handle is dead: the next call looks for its successor."""
        self._actor = None

    def _find(self) -> Any:
        if self._deployment is not None:
            return start_queue(self._deployment)
        return ray.get_actor(QUEUE_NAME, namespace=self._namespace)


def start_queue(deployment: Deployment) -> Any:
    """The QueueActor of this namespace, made if there is none. Safe to call from many processes at once."""
    from asyncproc.actors.queue_actor import QueueActor

    return (
        ray.remote(QueueActor)
        .options(
            name=QUEUE_NAME,
            namespace=deployment.namespace,
            get_if_exists=True,
            lifetime="detached",
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=MAX_CALLS,
            num_cpus=0,
            resources=ON_THE_HEAD,
            enable_task_events=False,
        )
        .remote(deployment)
    )


async def deploy_queue(deployment: Deployment) -> None:
    """See to it that the QueueActor runs this configuration and code; a new one adopts what its workers run.

    `get_if_exists` alone would go on with the old code for ever. Raises `TimeoutError` where there is none in time.
    """
    async with asyncio.timeout(DEPLOY_TIMEOUT_S):
        while True:
            actor = await asyncio.to_thread(start_queue, deployment)
            try:
                if await actor.fingerprint.remote() == deployment.fingerprint:
                    return
            except RayError as error:
                log.warning("the QueueActor does not say which code it runs (%s): asked again", type(error).__name__)
            else:
                # Replicas of the old code may make an old one again before ours is there: hence the loop.
                await asyncio.to_thread(ray.kill, actor, no_restart=True)
            await asyncio.sleep(RETRY_S)
