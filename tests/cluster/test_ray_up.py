"""`ray up` over ssh to three machines, as cluster.yaml describes them. It takes minutes: `make cluster-test`."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.cluster.hosts import REPOSITORY, Hosts, missing
from tests.eventually import eventually

pytestmark = [
    pytest.mark.skipif("ASYNCPROC_CLUSTER_TEST" not in os.environ, reason="long: `make cluster-test` runs it"),
    pytest.mark.timeout(900),
]

UP_S: Final = 300.0
COPIED: Final = ("asyncproc", "constraints.txt", "pyproject.toml", "serve_app.py", "README.md", "LICENSE")
TASKS: Final = """
import os, socket, time
from asyncproc import task

@task(name="Where")
def where(seconds: float = 0.0) -> dict[str, str]:
    time.sleep(seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        ip = probe.getsockname()[0]
    secret = any("STORAGE" in name for name in os.environ)
    return {"ip": ip, "version": "1", "sees_storage": str(secret)}
"""


class Cluster:
    """What somebody does who follows cluster.yaml, in a directory of their own."""

    def __init__(self, folder: Path, hosts: Hosts, database: str) -> None:
        self.project, self.hosts = folder / "project", hosts
        self.head, *self.others = hosts.hosts
        self.url = f"http://{self.head.ip}:8080"
        self.project.mkdir()
        for name in COPIED:
            source = REPOSITORY / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self.project / name)
        (self.project / "examples").mkdir()
        self.write_tasks(TASKS)
        self.token = folder / "token"
        self.token.write_text(token_hex(32))
        self._configure()
        given = hosts.ssh(self.head, "umask 077; cat > ~/asyncproc.env", f"ASYNCPROC_STORAGE_URL='{database}'\n")
        assert given.returncode == 0, given.stderr

    def write_tasks(self, text: str) -> None:
        (self.project / "examples" / "where.py").write_text(text)

    def _configure(self) -> None:
        settings = {
            "api": {"listenAddr": f"{self.head.ip}:8080"},
            "queue": {"workerPoolSize": 6},
            "tasks": ["examples.where"],
        }
        (self.project / "asyncproc.yaml").write_text(yaml.safe_dump(settings))
        config: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
        config["provider"] |= {"head_ip": self.head.ip, "worker_ips": [host.ip for host in self.others]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        config["file_mounts"]["~/.ray/auth_token"] = str(self.token)
        # All but the installation of packages, which these hosts share with this machine.
        installs = ("pip install", "compileall")
        config["setup_commands"] = [
            command for command in config["setup_commands"] if not any(word in command for word in installs)
        ]
        (self.project / "cluster.yaml").write_text(yaml.safe_dump(config))

    def ray(self, *arguments: str) -> str:
        done = subprocess.run(
            [REPOSITORY / ".venv" / "bin" / "ray", *arguments],
            cwd=self.project,
            env={**os.environ, "RAY_UP_enable_autoscaler_v2": "0", "RAY_TMPDIR": str(self.project.parent)},
            capture_output=True,
            text=True,
            timeout=UP_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def enqueue(self, number: int, seconds: float) -> list[str]:
        tasks = [{"taskType": "Where", "payload": {"seconds": seconds}}] * number
        answer = httpx.post(f"{self.url}/tasks/enqueue", json={"tasks": tasks}, timeout=60)
        assert answer.status_code == 200, answer.text
        return [task["id"] for task in answer.json()["tasks"]]

    def results(self, ids: list[str]) -> list[dict[str, str]]:
        """Once all have succeeded."""

        def look() -> list[dict[str, str]]:
            with httpx.Client(base_url=self.url, timeout=60) as http:
                found = [http.get(f"/task/{task_id}").json() for task_id in ids]
            assert not [task for task in found if task["status"] in ("failed", "cancelled")]
            return [task["result"] for task in found] if all(t["status"] == "succeeded" for t in found) else []

        return eventually(look, within_s=120)

    def addresses(self) -> set[str]:
        """Where tasks run at the moment."""
        return {result["ip"] for result in self.results(self.enqueue(30, 0.05))}


@pytest.fixture(scope="module")
def cluster(postgres: str) -> Iterator[Cluster]:
    if why := missing():
        pytest.skip(why)
    with ExitStack() as stack:
        # Short, and not below pytest's own directory: the paths of Ray's sockets are below it.
        folder = Path(tempfile.mkdtemp(prefix="apc-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        hosts = Hosts(folder, 3)
        stack.callback(hosts.close)
        yield Cluster(folder, hosts, postgres)


def test_a_cluster_is_brought_up_loses_a_host_takes_new_code_and_goes_down(cluster: Cluster) -> None:
    everywhere = {host.ip for host in cluster.hosts.hosts}

    cluster.ray("up", "-y", "--no-config-cache", "cluster.yaml")
    assert cluster.is_healthy(), "the API is started by `ray up` itself"
    eventually(lambda: cluster.addresses() == everywhere, within_s=180)

    victim = cluster.others[-1]
    tasks = cluster.enqueue(600, 0.1)
    eventually(lambda: cluster.results(tasks[:10]))
    victim.kill()
    found = cluster.results(tasks)
    assert {result["ip"] for result in found} == everywhere
    assert {result["sees_storage"] for result in found} == {"False"}
    eventually(lambda: cluster.addresses() == everywhere - {victim.ip}, within_s=120)

    cluster.hosts.start(victim)
    cluster.write_tasks(TASKS.replace('"version": "1"', '"version": "2"'))
    cluster.ray("up", "-y", "--no-config-cache", "cluster.yaml")
    assert cluster.is_healthy()
    eventually(lambda: cluster.addresses() == everywhere, within_s=180)
    assert {result["version"] for result in cluster.results(cluster.enqueue(30, 0.0))} == {"2"}

    cluster.ray("down", "-y", "cluster.yaml")
    eventually(lambda: not [host.name for host in cluster.hosts.hosts if host.named("raylet")])
    assert not cluster.is_healthy()
