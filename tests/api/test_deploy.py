"""The API put on a Ray that runs already: by the command, and by the builder that KubeRay is given."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import ray
import yaml

from asyncproc.actors.deployment import QUEUE_NAME
from tests.deployed import remove_actors
from tests.eventually import eventually

NAMESPACE = "deployed"


def configure(directory: Path, **sections: Any) -> None:
    (directory / "asyncproc.yaml").write_text(yaml.safe_dump(sections))


def fingerprint() -> str:
    return str(ray.get(ray.get_actor(QUEUE_NAME, namespace=NAMESPACE).fingerprint.remote()))


def test_the_api_comes_to_a_ray_that_runs_and_is_replaced_there(
    serve_url: str, database: str, start_dir: Path, tmp_path: Path
) -> None:
    from ray import serve

    from asyncproc.serving import APP_NAME, for_cluster

    shutil.copy(start_dir / "sample_tasks.py", tmp_path)
    sections: dict[str, Any] = {
        "api": {"listenAddr": serve_url.removeprefix("http://")},
        "ray": {"namespace": NAMESPACE},
        "storage": {"url": database},
        "tasks": ["sample_tasks"],
    }
    configure(tmp_path, **sections)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "asyncproc", "deploy"],
            cwd=tmp_path,
            env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"API        {serve_url}" in done.stdout
        assert httpx.get(f"{serve_url}/healthz").json()["status"] == "healthy"
        before = fingerprint()

        configure(tmp_path, **sections, queue={"maxTaskRetry": 7})
        serve.run(for_cluster({"startDir": str(tmp_path)}), name=APP_NAME, route_prefix="/")

        eventually(lambda: fingerprint() != before)
        eventually(lambda: httpx.get(f"{serve_url}/healthz").status_code == 200)
    finally:
        serve.delete(APP_NAME)
        remove_actors(NAMESPACE)
