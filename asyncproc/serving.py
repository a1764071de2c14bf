"""The REST API as a Ray Serve application: the one place where FastAPI, Serve and the actors meet."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from asyncproc.actors.deployment import ON_THE_HEAD, Deployment, QueueHandle, deploy_queue
from asyncproc.actors.exposure import check_this_ray
from asyncproc.actors.gateway import Gateway
from asyncproc.api.admission import Admission
from asyncproc.api.app import RETRY_AFTER_S, build
from asyncproc.api.door import Door
from asyncproc.api.figures import Counting
from asyncproc.api.garbage import search_when_quiet
from asyncproc.api.overflow import Cancelling
from asyncproc.api.stored import StoredCopy
from asyncproc.api.watch import Watch
from asyncproc.clock import TaskIds
from asyncproc.config import ApiSettings, Settings
from asyncproc.config_file import load
from asyncproc.registry import from_settings
from asyncproc.storage.inspector import Inspector

log = logging.getLogger(__name__)

APP_NAME: Final = "asyncproc"
REFUSALS_AT_ONCE: Final = 1_000
"""Requests that a replica works on beyond all that it admits, so that one that is over a limit is told so at once."""
HEALTH_CHECK_S: Final = 1.0
"""How soon Serve sees that a replica died; with its own ten seconds a single one was away for as long."""
ONE_LOOP: Final = {"env_vars": {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}}
"""Serve's part of a request and ours on one event loop. By its default each has a thread, and under load a request
waits several times for one of them to hand the interpreter to the other."""
MAX_QUEUED: Final = 1_000
"""Requests that wait for a replica; past them Serve answers 503."""


def application(settings: Settings, start_dir: Path, *, storage_later: bool = False) -> serve.Application:
    """Raises `ConfigError` and `RegistryError` here, before anything is started.

    `storage_later`: the database is named in the environment of the head node alone, where a replica looks for it.
    """
    if storage_later:
        from_settings(settings, start_dir)
    else:
        Deployment.of(settings, start_dir)

    async def open_door() -> Door:
        return await _open_door(load(None, os.environ, start_dir) if storage_later else settings, start_dir)

    def build_app() -> FastAPI:
        return build(open_door)

    api = serve.deployment(
        name="Api",
        num_replicas=settings.api.replicas,
        max_ongoing_requests=_in_hand(settings.api),
        max_queued_requests=MAX_QUEUED,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        ray_actor_options={"num_cpus": 0, "resources": ON_THE_HEAD, "runtime_env": ONE_LOOP},
        health_check_period_s=HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=settings.api.enqueue_timeout + 5,
        logging_config=LoggingConfig(enable_access_log=False),
    )(serve.ingress(build_app)())
    return api.bind()


async def _open_door(settings: Settings, start_dir: Path) -> Door:
    """In a replica: see to it that the QueueActor is there, and hold all that requests need."""
    for warning in check_this_ray(settings.ray):
        log.warning("%s", warning)
    deployment = await asyncio.to_thread(Deployment.of, settings, start_dir)
    registry = await asyncio.to_thread(from_settings, settings, start_dir)
    await deploy_queue(deployment)
    queue = QueueHandle(deployment.namespace, deployment)
    inspector = Inspector(deployment.conninfo, settings.storage.read_connections)
    await inspector.open()
    gateway = Gateway(queue, settings.api.enqueue_timeout)
    stored = StoredCopy(inspector, registry.obey)
    stored.follow()
    admission = Admission(settings.api)
    caretaker = search_when_quiet(admission)
    counting = Counting(inspector)
    return Door(
        gateway,
        inspector,
        registry,
        settings,
        TaskIds(),
        admission,
        stored,
        counting,
        Watch(inspector),
        Cancelling(settings),
        (caretaker,),
    )


def _in_hand(limits: ApiSettings) -> int:
    """Requests that one replica works on at once, those included that it refuses."""
    admitted = limits.max_enqueues + limits.max_reads + limits.max_watches + limits.max_retries
    return admitted + REFUSALS_AT_ONCE


def configured() -> serve.Application:
    """The application of the directory and the environment of the start."""
    start_dir = Path.cwd()
    return application(load(None, os.environ, start_dir), start_dir)


def for_cluster(args: dict[str, str]) -> serve.Application:
    """A builder for `serve deploy` and KubeRay, which build the application on any node: `startDir` names the directory
    of asyncproc.yaml and the task modules, on all of them."""
    start_dir = Path(args.get("startDir", "."))
    return application(load(None, os.environ, start_dir), start_dir, storage_later=True)
