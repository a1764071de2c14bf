"""`python -m chaos.second ADDRESS`: a second QueueActor, started by hand beside the one that reigns.

Says `reigns` once its reign has begun, and keeps it until its input ends.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray

from asyncproc.actors.deployment import Deployment
from asyncproc.actors.queue_actor import QueueActor
from asyncproc.config_file import load


def main() -> None:
    start_dir = Path.cwd()
    deployment = Deployment.of(load(None, os.environ, start_dir), start_dir)
    ray.init(address=sys.argv[1], namespace=deployment.namespace, log_to_driver=False)
    actor: Any = (
        ray.remote(QueueActor)
        .options(name="SecondQueueActor", num_cpus=0, max_concurrency=1_000, max_restarts=0)
        .remote(deployment)
    )
    # Without workers that answer to it, a health of all zeros but the epoch is what it can have.
    while ray.get(actor.health.remote(), timeout=30)[3] == 0:
        time.sleep(0.02)
    print("reigns", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
