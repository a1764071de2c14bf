"""Who reigns: the lock and the epoch."""

from typing import Final, LiteralString

LOCK_KEY: Final = 0x617379636E63
"""The advisory lock that a takeover holds exclusively and every cycle shared."""
# In: key. A statement of its own: the epoch must be read by a snapshot taken after the lock was granted.
LOCK_SHARED: Final[LiteralString] = "SELECT pg_advisory_xact_lock_shared(%s)"
LOCK_EXCLUSIVE: Final[LiteralString] = "SELECT pg_advisory_xact_lock(%s)"
# In: epoch. Raises AP001 where another one reigns.
PROVE_EPOCH: Final[LiteralString] = "SELECT asyncproc.prove_epoch(%s)"
# Out: the new epoch, the database's clock.
TAKE_EPOCH: Final[LiteralString] = """
    UPDATE asyncproc.reign SET epoch = epoch + 1
    RETURNING epoch, extract(epoch FROM clock_timestamp())::float8
"""
# In: key. Ends whoever holds the lock: a QueueActor whose process is frozen inside a transaction. Asking who holds it
# is exact; a process id noted at the takeover is outdated as soon as that one reconnects.
END_HOLDERS: Final[LiteralString] = """
    SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
    AND (l.classid::bigint << 32 | l.objid::bigint) = %s::bigint AND l.pid <> pg_backend_pid()
"""
