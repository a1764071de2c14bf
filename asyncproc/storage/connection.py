"""Opening connections: time limits, keepalives, and what an error says about whose fault it is."""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from asyncproc.storage import arrays

Connection: TypeAlias = AsyncConnection[tuple[object, ...]]
Fence: TypeAlias = Callable[[Connection], Awaitable[None]]
"""Proves within a transaction that the reign goes on; raises an error of Postgres' where it is over."""

CONNECT_TIMEOUT_S: Final = 3
_KEEPALIVES: Final = {
    "keepalives_idle": 3,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 9000,
    "connect_timeout": CONNECT_TIMEOUT_S,
}
"""A peer that vanished without a word is noticed within ten seconds."""

# Generic plans, by index and in its order: with what it believes of a table that was never analysed, the planner was
# seen to read all of it for a claim, and all of a queue, sorted, for one page.
# Read committed: under a stricter level the snapshot is older than the lock of the fence, and the fence does not hold.
WRITER_OPTIONS: Final = (
    "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    " -c enable_bitmapscan=off -c enable_sort=off -c enable_incremental_sort=off"
    " -c jit=off -c lock_timeout=5s -c statement_timeout=60s -c idle_in_transaction_session_timeout=10s"
    " -c default_transaction_isolation=read\\ committed -c synchronous_commit=on -c timezone=UTC"
)
# Custom plans: one for all values looks through every partition, where most values rule out most of them. A list of
# failed tasks took 60 ms by such a plan with 180 partitions, 2 ms by its own.
# Constraints of tables are asked as well: no live task is in a final state, and a list of failed ones read all of them.
READER_OPTIONS: Final = (
    "-c plan_cache_mode=force_custom_plan -c constraint_exclusion=on -c jit=off"
    " -c statement_timeout=5s -c default_transaction_read_only=on -c timezone=UTC"
)


def hardened(conninfo: str, application_name: str, options: str) -> str:
    """The same database, with our time limits and a name that `pg_stat_activity` shows."""
    theirs = conninfo_to_dict(conninfo).get("options") or ""
    return make_conninfo(
        conninfo,
        application_name=application_name,
        options=f"{theirs} {options}".strip(),
        client_encoding="utf8",
        **_KEEPALIVES,
    )


async def open_writer(conninfo: str) -> Connection:
    """The QueueActor's one writing connection. Raises `psycopg.OperationalError` where Postgres is away."""
    connection: Connection = await AsyncConnection.connect(
        hardened(conninfo, "asyncproc-queue", WRITER_OPTIONS), autocommit=True, prepare_threshold=0
    )
    arrays.register(connection)
    return connection


def shut(connection: Connection) -> None:
    """End the connection under whoever waits for its answer: that one is told that it broke."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def reader_pool(conninfo: str, max_size: int) -> AsyncConnectionPool[Connection]:
    """Connections for reads, opened when first needed."""
    return AsyncConnectionPool(
        hardened(conninfo, "asyncproc-reader", READER_OPTIONS),
        min_size=0,
        max_size=max_size,
        timeout=2.0,
        # The waits between the pool's own attempts double: with its five minutes it was still waiting long after
        # Postgres had come back. Whoever reads next starts a new attempt.
        reconnect_timeout=1.0,
        open=False,
        check=AsyncConnectionPool.check_connection,
        kwargs={"autocommit": True},
        configure=_register,
    )


async def _register(connection: Connection) -> None:
    arrays.register(connection)


def is_away(error: psycopg.Error) -> bool:
    """True where the connection, and not the statement, is at fault: worth another try later.

    Class 08 connection, 25 transaction state (idle for too long, a standby that takes no writes), 40 serialization and
    deadlock, 53 resources (disk full, too many clients), 55 lock timeout, 57 operator (shutdown, restart, terminated),
    58 I/O. Without a code it is the client library's own word.
    """
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return code[:2] in {"08", "25", "40", "53", "55", "57", "58"} or code == "XX000"


def is_about_a_row(error: psycopg.Error) -> bool:
    """True where a value is at fault: class 22 data, 23 constraints, 54 limits (nested too deep, too long to index)."""
    return (error.sqlstate or "")[:2] in {"22", "23", "54"}


def first_line(error: psycopg.Error) -> str:
    """What went wrong, without the values that Postgres quotes below it."""
    return str(error).split("\n")[0]
