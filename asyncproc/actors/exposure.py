"""Whoever reaches a port of Ray without a token can run code there: such a start is refused."""

import ipaddress
import os
from typing import Final

import ray

from asyncproc.config import LOOPBACK, RaySettings
from asyncproc.errors import ConfigError

MODE: Final = "RAY_AUTH_MODE"
TOKEN: Final = "token"


def check_start(settings: RaySettings) -> list[str]:
    """Look at how a Ray will be that is about to start here; returns what to warn of. Raises `ConfigError`."""
    # Unset it is left to Ray, which then asks for a token: it has read the variable when it was imported, so what is
    # set here would reach the processes that it starts and not this one.
    mode = os.environ.get(MODE, TOKEN).lower()
    problems, warnings = [], []
    if mode != TOKEN:
        told = f"{MODE} is {mode!r}: whoever reaches a port of this Ray can run code on this machine"
        if settings.without_token:
            warnings.append(f"{told}; ray.withoutToken allows it")
        else:
            problems.append(f"{told}. Leave {MODE} unset, or set ray.withoutToken to true to allow it")
    if not _is_private(settings.dashboard_host):
        told = (
            f"ray.dashboardHost is {settings.dashboard_host!r}: the dashboard listens where others may reach it, and"
            " its token travels in plain text"
        )
        if settings.public_dashboard:
            warnings.append(f"{told}; ray.publicDashboard allows it")
        else:
            problems.append(
                f"{told}. Name 127.0.0.1 or the address of a private network, or set ray.publicDashboard to true to"
                " allow it"
            )
    if problems:
        raise ConfigError(tuple(problems))
    return warnings


def check_this_ray(settings: RaySettings) -> list[str]:
    """The same for a Ray that was started by somebody else, asked by a process that it started itself: that one has
    the environment of its node. Returns what to warn of. Raises `ConfigError`."""
    address = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray does not annotate it
    if os.environ.get(MODE, "").lower() == TOKEN or address in LOOPBACK:
        return []
    told = f"this Ray listens on {address} and asks nobody for a token: whoever reaches it can run code here"
    if settings.without_token:
        return [f"{told}; ray.withoutToken allows it"]
    raise ConfigError(
        (
            f"{told}. Start it with {MODE}=token in the environment of every node (`ray get-auth-token --generate`"
            " makes a token), or set ray.withoutToken to true to allow it",
        )
    )


def _is_private(host: str) -> bool:
    if host in LOOPBACK:
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False  # a name may mean anything
    return (address.is_private or address.is_loopback) and not address.is_unspecified
