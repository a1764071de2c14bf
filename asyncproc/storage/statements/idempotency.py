"""Idempotency keys."""

from typing import Final, LiteralString

# In:   keys, hashes of bodies, answers, instants until which they are kept, as columns; now. A key that is in use is
#       left alone: whether it is was asked before, so that this is a replay.
USE_KEYS: Final[LiteralString] = """
    INSERT INTO asyncproc.idempotency_key AS k (key, body_hash, answer, expires_at)
    SELECT n.key, n.body_hash, n.answer, to_timestamp(n.expires_at)
    FROM unnest(%s::text[], %s::bytea[], %s::text[], %s::float8[]) AS n (key, body_hash, answer, expires_at)
    ON CONFLICT (key) DO UPDATE
    SET body_hash = excluded.body_hash, answer = excluded.answer, expires_at = excluded.expires_at
    WHERE k.expires_at <= to_timestamp(%s)
"""
# In:   keys, hashes of bodies as columns; now.
# Out:  the keys that are in use, each with its answer, null where another body used it.
ANSWERS: Final[LiteralString] = """
    SELECT k.key, CASE WHEN k.body_hash = a.body_hash THEN k.answer END
    FROM asyncproc.idempotency_key k JOIN unnest(%s::text[], %s::bytea[]) AS a (key, body_hash) ON k.key = a.key
    WHERE k.expires_at > to_timestamp(%s)
"""
# In:   a number of rows: no more are deleted. Rows that a cycle replaces just now are skipped: it must not wait for us
#       while we wait for it.
# Plan: the index on the instant.
FORGET_KEYS: Final[LiteralString] = """
    DELETE FROM asyncproc.idempotency_key WHERE key IN (
        SELECT key FROM asyncproc.idempotency_key WHERE expires_at <= now()
        ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""
