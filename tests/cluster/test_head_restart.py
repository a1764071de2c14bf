"""Ray's control store in a Redis: the head goes and comes back, and workers elsewhere never noticed.

Part of `make cluster-test`, where redis-server is installed. Without Redis all of Ray starts anew with the head: that
is `ray_kill` in tests/chaos.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import httpx
import psutil
import psycopg
import pytest
import ray
import yaml

from tests.deployed import Ledger
from tests.eventually import eventually

pytestmark = [
    pytest.mark.skipif("ASYNCPROC_CLUSTER_TEST" not in os.environ, reason="long: `make cluster-test` runs it"),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
    pytest.mark.timeout(600),
]

BACK_S: Final = 150.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nodes:
    """A head and another node, each started by `ray start` as on machines of their own."""

    def __init__(self, folder: Path, start_dir: Path, database: str) -> None:
        self.folder, self.start_dir = folder, start_dir
        self.address = f"{ray.util.get_node_ip_address()}:{free_port()}"  # type: ignore[no-untyped-call]
        self.url = f"http://127.0.0.1:{free_port()}"
        self.redis_port, password = free_port(), token_hex(16)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ASYNCPROC_", "RAY_"))},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token_hex(32),
            "RAY_TMPDIR": str(folder),
        }
        self.redis = {
            "RAY_REDIS_ADDRESS": f"127.0.0.1:{self.redis_port}",
            "RAY_external_storage_namespace": "asyncproc",
        }
        self._password = password
        self.started: list[subprocess.Popen[bytes]] = []
        settings = {
            "api": {"listenAddr": self.url.removeprefix("http://")},
            # A CPU each: the head has none, so they are on the other node.
            "pools": {"elsewhere": {"queues": ["elsewhere"], "workers": 2, "numCpus": 1}},
            "storage": {"url": database},
            "tasks": ["sample_tasks"],
        }
        (start_dir / "asyncproc.yaml").write_text(yaml.safe_dump(settings))

    def start_redis(self) -> None:
        options = {"port": self.redis_port, "bind": "127.0.0.1", "requirepass": self._password, "save": ""}
        self._start(
            "redis", ["redis-server", *(part for key, value in options.items() for part in (f"--{key}", str(value)))]
        )

    def start_head(self) -> subprocess.Popen[bytes]:
        # A head refuses to start where a process knows its address: here the other node is on the same machine.
        (self.folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        port = self.address.rpartition(":")[2]
        options = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
        return self._ray(*options, f"--redis-password={self._password}", **self.redis)

    def start_node(self) -> subprocess.Popen[bytes]:
        return self._ray(f"--address={self.address}", "--num-cpus=2")

    def _ray(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        shared = ["--block", "--disable-usage-stats", "--object-store-memory=83886080", "--min-worker-port=0"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *shared, "--max-worker-port=0"]
        return self._start("ray", command, **environment)

    def _start(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(
                command,
                cwd=self.start_dir,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.started.append(started)
        return started

    def deploy(self) -> None:
        """What the head of cluster.yaml does last; tried until Ray is there."""

        def done() -> bool:
            tried = subprocess.run(
                [sys.executable, "-m", "asyncproc", "deploy"],
                cwd=self.start_dir,
                env={**self.environment, "RAY_ADDRESS": self.address},
                capture_output=True,
                text=True,
                check=False,
            )
            (self.folder / "deploy.log").write_text(f"{tried.stdout}\n{tried.stderr}")
            return tried.returncode == 0

        eventually(done, within_s=180)

    def is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def enqueue(self, type_name: str, payload: dict[str, Any]) -> None:
        body = {"tasks": [{"taskType": type_name, "payload": payload, "queue": "elsewhere"}]}
        httpx.post(f"{self.url}/tasks/enqueue", json=body, timeout=30).raise_for_status()

    @staticmethod
    def kill(started: subprocess.Popen[bytes]) -> None:
        root = psutil.Process(started.pid)
        processes = [*root.children(recursive=True), root]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                if process.is_running():
                    process.send_signal(number)
        started.wait()
        psutil.wait_procs(processes, timeout=30)

    def close(self) -> None:
        for started in reversed(self.started):
            if started.poll() is None:
                self.kill(started)


@pytest.fixture
def nodes(database: str, start_dir: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="apr-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        found = Nodes(folder, start_dir, database)
        stack.callback((start_dir / "asyncproc.yaml").unlink)
        stack.callback(found.close)
        yield found


def test_workers_outlive_a_head_whose_control_store_is_in_redis(
    nodes: Nodes, database: str, ledger: Ledger, gate: Path
) -> None:
    nodes.start_redis()
    head = nodes.start_head()
    nodes.start_node()
    nodes.deploy()
    for n in range(2):
        nodes.enqueue("Hold", {"ledger": ledger.path, "n": n, "gate": str(gate)})
    before = eventually(lambda: traces if len(traces := ledger.traces()) == 2 else [])

    nodes.kill(head)
    nodes.start_head()
    eventually(nodes.is_healthy, within_s=BACK_S)
    gate.touch()
    nodes.enqueue("Note", {"ledger": ledger.path, "n": 2})

    def ended() -> int:
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT count(*) FROM asyncproc.task_done WHERE state = 'succeeded'").fetchone()
        return row is not None and row[0] == 3

    eventually(ended)
    assert ledger.runs() == {0: 1, 1: 1, 2: 1}, "what ran on the other node went on"
    assert {trace.pid for trace in ledger.traces()} <= {trace.pid for trace in before}
