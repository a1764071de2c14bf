"""The system under test as users run it: `asyncproc up` in a directory, a Postgres, and a proxy between the two."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil
import psycopg
import yaml

from asyncproc.clock import monotonic
from asyncproc.failpoints import VARIABLE
from asyncproc.local.postgres import EmbeddedPostgres
from chaos.intent import BACKOFF_S
from chaos.proxy import CutProxy

WORKERS: Final = 4
HEAD: Final = "head"
START_S: Final = 120.0
STOP_S: Final = 60.0
QUEUE: Final = "ray::QueueActor"
WORKER: Final = "ray::WorkerActor"
REPLICA: Final = "ray::ServeReplica"
PROXIES: Final = ("haproxy", "ray::HAProxyManager", "ray::ProxyActor")
_ROOT: Final = Path(__file__).resolve().parent.parent
T = TypeVar("T")


class NotInTime(Exception):
    """Something that a run waits for did not come about."""


def until(condition: Callable[[], T | None], within_s: float, what: str) -> T:
    """The first truthy answer. Raises `NotInTime`."""
    deadline = monotonic() + within_s
    while not (answer := condition()):
        if monotonic() > deadline:
            raise NotInTime(f"{what}: not within {within_s:g} s")
        time.sleep(0.01)
    return answer


class System:
    """One Postgres, one proxy, and one `asyncproc up`, which can be killed and started again."""

    def __init__(self, folder: Path, stack: ExitStack, postgres_dir: Path, workers: int = WORKERS) -> None:
        self.folder = folder
        self.workers = workers
        self.start_dir = folder / "start"
        self.start_dir.mkdir()
        self.failpoints = folder / "failpoints"
        self.postgres_dir = postgres_dir
        self.postgres = EmbeddedPostgres(postgres_dir)
        self.conninfo = self.postgres.start()
        stack.callback(self.postgres.stop)
        self.proxy = CutProxy(Path(parse_qs(urlsplit(self.conninfo).query)["host"][0]) / ".s.PGSQL.5432")
        port = self.proxy.start()
        stack.callback(self.proxy.stop)
        api_port = _free_port()
        self.url = f"http://127.0.0.1:{api_port}"
        self._token = token_hex(32)
        self._up: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.node_of: dict[int, str] = {}
        """On which node each process was seen; the one that `asyncproc up` starts is the head."""
        settings = {
            "api": {"listenAddr": f"127.0.0.1:{api_port}"},
            "queue": {"workerPoolSize": workers, "backOff": {"base": f"{BACKOFF_S:g}s", "jitter": 0}},
            "storage": {
                "url": f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable&gssencmode=disable",
                # Not the guard is under test, but what happens where it did not look in time.
                "minFreeBytes": 0,
            },
            "ray": {"dashboardPort": _free_port()},
            "tasks": ["chaos.tasks"],
        }
        (self.start_dir / "asyncproc.yaml").write_text(yaml.safe_dump(settings))

    def start(self) -> None:
        """Returns once it answers. Raises `NotInTime`."""
        with (self.folder / "up.log").open("ab") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "asyncproc", "up"],
                cwd=self.start_dir,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._is_up, START_S, f"`asyncproc up` in {self.start_dir}")
        self.processes()

    def environment(self) -> dict[str, str]:
        """Of whatever belongs to the system."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ASYNCPROC_", "RAY_"))},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_TMPDIR": str(self.folder),
            "PYTHONPATH": str(_ROOT),
            VARIABLE: f"@{self.failpoints}",
        }

    def _is_up(self) -> bool:
        if self._up is not None and self._up.poll() is not None:
            raise NotInTime(f"`asyncproc up` ended with {self._up.returncode}: see {self.folder / 'up.log'}")
        return self.is_healthy()

    def is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """As Ctrl-C does; whatever outlives it is killed."""
        self.processes()
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait()
        self._kill_seen()
        for node in self._nodes.values():
            node.wait(STOP_S)
        self._up = None

    def kill(self) -> int:
        """SIGKILL for the whole of Ray and its driver; returns how many processes that were."""
        processes = self.processes()
        for process in processes:
            _signal(process, signal.SIGSTOP)
        # Stopped first, so that none of them sees another one die.
        processes = self.processes()
        self._kill_seen()
        if self._up is not None:
            self._up.wait(STOP_S)
        return len(processes)

    def _kill_seen(self) -> None:
        for process in self._seen.values():
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(list(self._seen.values()), timeout=STOP_S)
        self._seen.clear()

    def keep_logs(self, folder: Path) -> None:
        """Copy what the processes said, before it goes with the system."""
        shutil.copy(self.folder / "up.log", folder)
        shutil.copy(self.postgres_dir / "server.log", folder)
        for session in self.folder.glob("ray/session_2*"):
            logs = folder / session.name
            logs.mkdir()
            for log in session.glob("logs/*"):
                if log.is_file() and log.stat().st_size:
                    shutil.copy(log, logs)

    def processes(self) -> list[psutil.Process]:
        """All that `asyncproc up` started, and itself; each is remembered, to be ended with the system."""
        if self._up is None or self._up.poll() is not None:
            return []
        found = self._tree(HEAD, self._up.pid)
        for name, node in self._nodes.items():
            found += self._tree(name, node.pid)
        return found

    def _tree(self, node: str, pid: int) -> list[psutil.Process]:
        try:
            root = psutil.Process(pid)
            found = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        self._seen.update({process.pid: process for process in found})
        self.node_of.update({process.pid: node for process in found})
        return found

    # ---- further nodes

    def join(self) -> str:
        """One more node of this Ray, in processes of its own. Workers come to it by and by."""
        name = f"node-{len(self._nodes) + 1}"
        options = {"num-cpus": 2, "object-store-memory": 80 << 20, "min-worker-port": 0, "max-worker-port": 0}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._nodes[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
                    f"--address={self.gcs_address()}",
                    *(f"--{option}={value}" for option, value in options.items()),
                ],
                cwd=self.start_dir,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: self.named("raylet", name), START_S, f"the raylet of {name}")
        return name

    def nodes(self) -> list[str]:
        """Those that joined and were not killed, the oldest first."""
        return [name for name, node in self._nodes.items() if node.poll() is None]

    def freeze_node(self, name: str) -> list[psutil.Process]:
        """Stop all of its processes, so that none sees another one die; returns them."""
        process_id = self._nodes[name].pid
        for process in self._tree(name, process_id):
            _signal(process, signal.SIGSTOP)
        return self._tree(name, process_id)

    def kill_node(self, name: str) -> None:
        """SIGKILL for all of it."""
        processes = self.freeze_node(name)
        for process in processes:
            _signal(process, signal.SIGKILL)
        self._nodes[name].wait(STOP_S)
        psutil.wait_procs(processes, timeout=STOP_S)

    def workers_by_node(self) -> Counter[str]:
        return Counter(self.node_of[process.pid] for process in self.named(WORKER))

    def named(self, prefix: str, node: str = "") -> list[psutil.Process]:
        """Those whose title begins so, the oldest first; on one node where it is named."""
        found = [process for process in self.processes() if _title(process).startswith(prefix)]
        found = [process for process in found if node in ("", self.node_of[process.pid])]
        return sorted(found, key=lambda process: process.pid)

    def only(self, prefix: str) -> psutil.Process:
        """The one, waited for where it is being started. Raises `NotInTime`."""
        return until(lambda: self.named(prefix), 30, f"a process {prefix}")[0]

    def query(self, text: str, *parameters: object) -> list[Any]:
        """Past the proxy, which only the system goes through."""
        with psycopg.connect(self.conninfo, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(text.encode(), parameters)
            return [] if cursor.description is None else cursor.fetchall()

    def gcs_address(self) -> str:
        """Where Ray is to be joined."""
        for process in self.processes():
            for argument in process.cmdline():
                if argument.startswith("--gcs-address="):
                    return argument.partition("=")[2]
        raise NotInTime("no process of Ray says where it is")


def _free_port() -> int:
    # Not the one of the benchmark, whose module takes Ray along: nothing here is part of what is under test.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _title(process: psutil.Process) -> str:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        name = process.name()
        return process.cmdline()[0] if name.startswith("ray::") else name
    except (psutil.Error, IndexError):
        return ""


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


@contextmanager
def system(disk_bytes: int | None = None, workers: int = WORKERS) -> Iterator[System]:
    """One that runs. With `disk_bytes` its Postgres lives on a memory disk of that size.

    Raises `OSError` where this user may not mount one.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ap-chaos-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        disk = folder / "disk"
        disk.mkdir()
        if disk_bytes is not None:
            mount(disk, disk_bytes)
            stack.callback(unmount, disk)
        the_system = System(folder, stack, disk / "postgres", workers)
        stack.callback(the_system.stop)
        the_system.start()
        yield the_system


def mount(folder: Path, size: int) -> None:
    """Raises `OSError` where this user may not."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"no disk of a size of its own: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=False)
