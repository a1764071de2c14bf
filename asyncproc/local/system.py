"""The whole system on one machine, in the foreground: Postgres, Ray, the API; stopped in the opposite order."""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import ray
from pydantic import SecretStr
from ray import serve
from ray.exceptions import RayError

from asyncproc.actors.deployment import QUEUE_NAME
from asyncproc.actors.exposure import check_start, check_this_ray
from asyncproc.clock import monotonic
from asyncproc.config import Settings
from asyncproc.config_file import PREFIX
from asyncproc.errors import AsyncprocError
from asyncproc.local import note
from asyncproc.local.haproxy import haproxy_environment
from asyncproc.local.note import HOME
from asyncproc.local.postgres import EmbeddedPostgres
from asyncproc.registry import from_settings
from asyncproc.serving import APP_NAME, application
from asyncproc.storage.migrate import migrate

log = logging.getLogger(__name__)

START_S: Final = 120.0
_STOP_MARGIN_S: Final = 60.0
_OBJECT_STORE_BYTES: Final = 128 * 1024 * 1024
Say = Callable[[str], None]


class AlreadyRunning(AsyncprocError):
    """Another process runs the system of this directory."""


class NotStarted(AsyncprocError):
    """The system did not come up."""


def up(settings: Settings, start_dir: Path, say: Say) -> None:
    """Start everything, say where it is, run until SIGINT or SIGTERM, stop everything.

    Raises `AsyncprocError` where it cannot start; whatever was started by then is stopped. Configuration, task modules
    and ports are looked at before anything is.
    """
    home = start_dir / HOME
    home.mkdir(exist_ok=True)
    if (other := note.read(start_dir)) is not None:
        raise AlreadyRunning(f"process {other.pid} runs it already: `asyncproc down` stops it")
    from_settings(settings, start_dir)
    warnings = check_start(settings.ray)
    _check_ports(settings)
    stopping = threading.Event()
    with ExitStack() as stack:
        settings = _with_database(settings, home, stack, say)
        asyncio.run(migrate(settings.storage.conninfo() or ""))
        app = application(settings, start_dir)
        _start_ray(settings, stack)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        stack.callback(_drain, settings, say)
        start_api(settings, app)
        url = url_of(settings)
        wait_until_healthy(url, stopping)
        note.write(start_dir, url)
        stack.callback(note.erase, start_dir)
        if not stopping.is_set():
            _welcome(settings, url, warnings, say)
        stopping.wait()
        say("stopping: no new requests, running tasks may finish ...")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(130))
    say("stopped; every task is kept in Postgres")


def _with_database(settings: Settings, home: Path, stack: ExitStack, say: Say) -> Settings:
    if settings.storage.conninfo() is not None:
        return settings
    postgres = EmbeddedPostgres(home / "postgres")
    url = postgres.start()
    stack.callback(postgres.stop)
    say(f"Postgres   embedded, data in {home / 'postgres'}")
    return settings.model_copy(update={"storage": settings.storage.model_copy(update={"url": SecretStr(url)})})


def _start_ray(settings: Settings, stack: ExitStack) -> None:
    os.environ.update(haproxy_environment(stack))
    # Every process of Ray inherits the environment, and user code runs in some. Who needs it is given the settings.
    for name in [name for name in os.environ if name.startswith(f"{PREFIX}STORAGE_")]:
        del os.environ[name]
    # What these two say at a start, `_welcome` says in its own words.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        ray.init(
            address="local",
            namespace=settings.ray.namespace,
            num_cpus=settings.ray.num_cpus,
            include_dashboard=True,
            dashboard_host=settings.ray.dashboard_host,
            dashboard_port=settings.ray.dashboard_port,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=False,
        )
    except (RayError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        raise NotStarted(f"Ray did not start: {error}") from error
    stack.callback(ray.shutdown)
    check_this_ray(settings.ray)


def start_api(settings: Settings, app: serve.Application) -> None:
    try:
        serve.start(http_options={"host": settings.api.host, "port": settings.api.port})
        serve.run(app, name=APP_NAME, route_prefix="/")
    except (RayError, RuntimeError, TimeoutError) as error:
        raise NotStarted(f"the API did not start: {str(error).strip().splitlines()[-1]}") from error


def _check_ports(settings: Settings) -> None:
    """Whatever holds a port is named before anything starts, not found in the log of a proxy afterwards."""
    ports = {"api.listenAddr": (settings.api.host, settings.api.port)}
    ports["ray.dashboardPort"] = (settings.ray.dashboard_host, settings.ray.dashboard_port)
    for key, (host, port) in ports.items():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                raise NotStarted(f"{key}: {host}:{port} cannot be had: {error.strerror}") from None


def _drain(settings: Settings, say: Say) -> None:
    """Admission stops first, then work; nothing that was acknowledged depends on either."""
    serve.delete(APP_NAME)
    try:
        queue = ray.get_actor(QUEUE_NAME, namespace=settings.ray.namespace)
    except ValueError:
        return  # The start was given up before there was one.
    try:
        grace_s = settings.queue.drain
        ray.get(queue.drain.remote(grace_s), timeout=grace_s + settings.queue.teardown + _STOP_MARGIN_S)
    except (RayError, TimeoutError) as error:
        say(f"the workers could not be drained ({type(error).__name__}): what they ran runs again at the next start")


def url_of(settings: Settings) -> str:
    host = "127.0.0.1" if settings.api.host in ("0.0.0.0", "::") else settings.api.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.api.port}"


def wait_until_healthy(url: str, stopping: threading.Event) -> None:
    deadline = monotonic() + START_S
    answer = "no answer"
    while not stopping.is_set():
        try:
            response = httpx.get(f"{url}/healthz", timeout=5)
            if response.status_code == 200:
                return
            answer = str(response.json().get("error"))
        except (httpx.HTTPError, ValueError) as error:
            answer = type(error).__name__
        if monotonic() > deadline:
            raise NotStarted(f"{url}/healthz did not turn healthy within {START_S:g} s: {answer}")
        stopping.wait(0.1)


def _welcome(settings: Settings, url: str, warnings: list[str], say: Say) -> None:
    dashboard = f"http://127.0.0.1:{settings.ray.dashboard_port}"
    say(f"API        {url}   (docs at {url}/docs)")
    say(f"Dashboard  {dashboard}   (its token: `ray get-auth-token`)")
    for warning in warnings:
        say(f"WARNING    {warning}")
    if not settings.api.is_loopback:
        say(
            f"WARNING    the API listens on {settings.api.listen_addr} without authentication: whoever reaches it"
            " can run tasks; set api.listenAddr to 127.0.0.1:8080 to keep it to this machine"
        )
    say("Ctrl-C stops all of it. Try:\n")
    payload = '{"tasks": [{"taskType": "CPUProcess", "payload": {"processType": "want to fail"}}]}'
    say(f"  curl {url}/tasks/enqueue -H 'Content-Type: application/json' -d '{payload}'\n")
