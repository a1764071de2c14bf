"""Deployments that consume tasks, as a user of Ray Serve writes them. Replicas get them by value."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.schema import TaskProcessorConfig
from ray.serve.task_consumer import task_consumer, task_handler

from asyncproc.serve import current_task


def config(queue: str, namespace: str, **more: Any) -> TaskProcessorConfig:
    return TaskProcessorConfig(
        queue_name=queue,
        adapter="asyncproc.serve.AsyncprocAdapter",
        adapter_config={"namespace": namespace, "drain_s": 60},
        **more,
    )


def consumers(task_processor_config: TaskProcessorConfig, replicas: int) -> serve.Application:
    def leave_trace(ledger: str, n: int) -> None:
        ctx = current_task()
        assert ctx is not None
        line = {"n": n, "attempt": ctx.attempt, "worker": ctx.worker, "pid": os.getpid()}
        with open(ledger, "a") as file:
            file.write(json.dumps(line) + "\n")

    class Consumer:
        @task_handler(name="hold")
        def hold(self, ledger: str, n: int, gate: str) -> int:
            leave_trace(ledger, n)
            while not Path(gate).exists():
                time.sleep(0.005)
            return n

        @task_handler(name="double")
        async def double(self, number: int, *, plus: int = 0) -> dict[str, int]:
            await asyncio.sleep(0)
            return {"doubled": 2 * number + plus}

        @task_handler
        def fail(self, ledger: str) -> None:
            leave_trace(ledger, 0)
            raise ValueError("no such thing")

    decorated = task_consumer(task_processor_config=task_processor_config)(Consumer)
    deployment = serve.deployment(
        num_replicas=replicas,
        max_ongoing_requests=2,
        health_check_period_s=1,
        graceful_shutdown_timeout_s=90,
        ray_actor_options={"num_cpus": 0},
    )(decorated)
    return deployment.bind()
