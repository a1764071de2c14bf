"""The API on a Ray that runs already: started, or replaced by new code and configuration; the command does not stay."""

import asyncio
import logging
import os
import threading
from pathlib import Path

import ray
from ray.exceptions import RayError

from asyncproc.actors.exposure import MODE, TOKEN
from asyncproc.config import Settings
from asyncproc.local.system import NotStarted, Say, start_api, url_of, wait_until_healthy
from asyncproc.serving import application
from asyncproc.storage.migrate import migrate


def deploy(settings: Settings, start_dir: Path, say: Say) -> None:
    """Returns once it is healthy. Raises `AsyncprocError`."""
    # Where nobody says otherwise: a driver that is given an address does not look for a token by itself.
    os.environ.setdefault(MODE, TOKEN)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    app = application(settings, start_dir)
    asyncio.run(migrate(settings.storage.conninfo() or ""))
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "auto"),
            namespace=settings.ray.namespace,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=False,
        )
    except (RayError, RuntimeError, ValueError, ConnectionError, TimeoutError) as error:
        raise NotStarted(f"there is no Ray to be had here: {error}; start one with `ray start --head`") from error
    try:
        start_api(settings, app)
        wait_until_healthy(url_of(settings), threading.Event())
        say(f"API        {url_of(settings)}   (docs at {url_of(settings)}/docs)")
    finally:
        ray.shutdown()
