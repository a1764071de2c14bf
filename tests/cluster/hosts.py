"""Machines for `ray up`, made of namespaces: each has its processes, its network, its home and its ssh server.

Nothing of it is left on this machine once the hosts are closed; all files are below one folder.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.eventually import eventually

REPOSITORY: Final = Path(__file__).resolve().parents[2]
NEEDED: Final = ("ip", "unshare", "nsenter", "mount", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")
OWNER: Final = pwd.getpwuid(0).pw_dir
"""The home of who starts all of it, and of who comes by ssh."""
_START: Final = """\
set -e
mkdir -p {home}/asyncproc/.venv
mount --bind {repository}/.venv {home}/asyncproc/.venv
mount --rbind {home}/asyncproc {repository}
case {python} in
    {owner}/*) mkdir -p {home}{inside} && mount --bind {python} {home}{inside} ;;
esac
mount --rbind {home} {owner}
for folder in /run /tmp/ray /dev/shm; do mkdir -p $folder; mount -t tmpfs none $folder; done
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f {conf}
"""
"""The home is this host's, and so is the code: where this repository is, it sees what was copied to ~/asyncproc. The
Python itself is shared, wherever it is."""
_SSHD: Final = """\
ListenAddress {ip}
HostKey {key}
AuthorizedKeysFile {key}.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
"""


def missing() -> str:
    """Why no hosts can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "hosts made of namespaces need root"
    for name in NEEDED:
        if shutil.which(name) is None:
            return f"{name} is not installed (Debian: iproute2, openssh-server, openssh-client, rsync)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "none", "/run"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"this machine makes no namespaces: {tried.stderr.strip()}" if tried.returncode else ""


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclass
class Host:
    name: str
    ip: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def processes(self) -> list[psutil.Process]:
        """All that run on it."""
        if self.process is None:
            return []
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, name: str) -> list[psutil.Process]:
        return [process for process in self.processes() if process.name() == name]

    def kill(self) -> None:
        """As if the power went: the first process of its namespace takes all others along."""
        if self.process is not None:
            processes = self.processes()
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            psutil.wait_procs(processes, timeout=30)
            self.process = None


class Hosts:
    """A bridge and the hosts on it, which this machine reaches by ssh."""

    def __init__(self, folder: Path, number: int) -> None:
        self._tag = f"ap{os.getpid() % 100_000}"
        self._net = f"10.213.{os.getpid() % 200 + 1}"
        self._stack = ExitStack()
        self.key = folder / "key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        self.hosts: list[Host] = []
        try:
            run("ip", "link", "add", self._tag, "type", "bridge")
            self._stack.callback(run, "ip", "link", "del", self._tag)
            run("ip", "addr", "add", f"{self._net}.1/24", "dev", self._tag)
            run("ip", "link", "set", self._tag, "up")
            for index in range(number):
                self.hosts.append(self._make(folder, index))
        except BaseException:
            self.close()
            raise

    def _make(self, folder: Path, index: int) -> Host:
        name = f"{self._tag}h{index}"
        host = Host(name, f"{self._net}.{10 + index}", folder / name)
        host.home.mkdir(parents=True)
        run("ip", "netns", "add", name)
        self._stack.callback(run, "ip", "netns", "del", name)
        inner = f"{name}i"
        run("ip", "link", "add", name, "type", "veth", "peer", "name", inner)
        run("ip", "link", "set", inner, "netns", name)
        run("ip", "link", "set", name, "master", self._tag, "up")
        run("ip", "-n", name, "addr", "add", f"{host.ip}/24", "dev", inner)
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "set", inner, "up")
        # Ray finds the address of its node by the way to the rest of the world, though there is none.
        run("ip", "-n", name, "route", "add", "default", "via", f"{self._net}.1")
        (host.folder / "sshd").write_text(_SSHD.format(ip=host.ip, key=self.key))
        script = _START.format(
            home=host.home,
            repository=REPOSITORY,
            conf=host.folder / "sshd",
            python=sys.base_prefix,
            owner=OWNER,
            inside=sys.base_prefix.removeprefix(OWNER),
        )
        (host.folder / "start").write_text(script)
        self._stack.callback(host.kill)
        self.start(host)
        return host

    def start(self, host: Host) -> None:
        with (host.folder / "log").open("ab") as log:
            host.process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{host.name}", "unshare", "--pid", "--fork", "--kill-child"),
                    *("--mount", "--mount-proc", "sh", str(host.folder / "start")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: self.ssh(host, "true").returncode == 0)

    def ssh(self, host: Host, command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5")
        return subprocess.run(
            ["ssh", "-i", str(self.key), *options, f"root@{host.ip}", command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    def close(self) -> None:
        self._stack.close()
