"""What operators set at run time, and the long works that follow from it."""

from typing import Final, LiteralString

COUNT_ON: Final[LiteralString] = "UPDATE asyncproc.steering SET version = version + 1"
VERSION: Final[LiteralString] = "SELECT version FROM asyncproc.steering"
# Out: what kind of row, name, text, instants since and until, reason, by whom. One statement, so that all of it is of
# one version.
STORED: Final[LiteralString] = """
    SELECT 'version', '', version::text, 0::float8, 0::float8, '', '' FROM asyncproc.steering
    UNION ALL SELECT kind, name, settings::text, 0, 0, '', '' FROM asyncproc.stored_settings
    UNION ALL SELECT 'pause', name, scope, extract(epoch FROM since), coalesce(extract(epoch FROM until), 0), reason,
        paused_by FROM asyncproc.pause
    UNION ALL SELECT 'draining', queue, '', extract(epoch FROM since), 0, '', '' FROM asyncproc.draining
"""
# In: kind, name, settings. Changes no row where there is one.
CREATE: Final[LiteralString] = """
    INSERT INTO asyncproc.stored_settings (kind, name, settings)
    VALUES (%s, %s, jsonb_strip_nulls(%s::jsonb)) ON CONFLICT DO NOTHING
"""
REPLACE: Final[LiteralString] = """
    INSERT INTO asyncproc.stored_settings (kind, name, settings)
    VALUES (%s, %s, jsonb_strip_nulls(%s::jsonb))
    ON CONFLICT (kind, name) DO UPDATE SET settings = excluded.settings
"""
# In: kind, name, settings twice. A key that is null goes.
MERGE: Final[LiteralString] = """
    INSERT INTO asyncproc.stored_settings AS s (kind, name, settings)
    VALUES (%s, %s, jsonb_strip_nulls(%s::jsonb))
    ON CONFLICT (kind, name) DO UPDATE SET settings = jsonb_strip_nulls(s.settings || %s::jsonb)
"""
# In: kind, name.
DELETE: Final[LiteralString] = "DELETE FROM asyncproc.stored_settings WHERE kind = %s AND name = %s"
# In: scope, name, instants since and until (null for none), reason, by whom.
PAUSE: Final[LiteralString] = """
    INSERT INTO asyncproc.pause (scope, name, since, until, reason, paused_by)
    VALUES (%s, %s, to_timestamp(%s), to_timestamp(%s), %s, %s)
    ON CONFLICT (scope, name) DO UPDATE SET since = excluded.since, until = excluded.until, reason = excluded.reason,
        paused_by = excluded.paused_by
"""
# In: scope, name, now. Those that are over go too.
RESUME: Final[LiteralString] = """
    DELETE FROM asyncproc.pause WHERE scope = %s AND name = %s OR until <= to_timestamp(%s)
"""
# In: queue, now. One that drains already does so since then.
DRAIN: Final[LiteralString] = """
    INSERT INTO asyncproc.draining (queue, since) VALUES (%s, to_timestamp(%s)) ON CONFLICT DO NOTHING
"""
FILL: Final[LiteralString] = "DELETE FROM asyncproc.draining WHERE queue = %s"

# In: queue, now. One that is under way goes on to this instant.
BEGIN_PURGE: Final[LiteralString] = """
    INSERT INTO asyncproc.purge (queue, asked_at) VALUES (%s, to_timestamp(%s))
    ON CONFLICT (queue) DO UPDATE SET asked_at = excluded.asked_at
"""
PURGES: Final[LiteralString] = "SELECT queue, extract(epoch FROM asked_at)::float8, cancelled FROM asyncproc.purge"
# In: number of tasks, queue.
COUNT_PURGED: Final[LiteralString] = "UPDATE asyncproc.purge SET cancelled = cancelled + %s WHERE queue = %s"
# In: queue, the instant that it was asked for. One that was asked for anew meanwhile goes on.
END_PURGE: Final[LiteralString] = "DELETE FROM asyncproc.purge WHERE queue = %s AND asked_at = to_timestamp(%s)"

# In:   queue; type, fairness key, concurrency key, resources, rank and id to start behind; number of rows.
# Out:  the same six of ready tasks, in their order, and lease and instant of making.
# Plan: index scan on task_live_ready.
READY: Final[LiteralString] = """
    SELECT type, fairness_key, concurrency_key, resources, rank, id, lease, extract(epoch FROM created_at)::float8
    FROM asyncproc.task_live
    WHERE queue = %s AND rank IS NOT NULL AND state = 'queued'
    AND (type, fairness_key, concurrency_key, resources, rank, id) > (%s, %s, %s, %s, %s::float8, %s)
    ORDER BY type, fairness_key, concurrency_key, resources, rank, id LIMIT %s
"""
# In:   queue; instant and id to start behind; number of rows.
# Out:  the same two of tasks that are not ready, in their order, and lease and instant of making.
# Plan: index scan on task_live_not_ready.
NOT_READY: Final[LiteralString] = """
    SELECT extract(epoch FROM ready_at)::float8, id, lease, extract(epoch FROM created_at)::float8
    FROM asyncproc.task_live
    WHERE queue = %s AND rank IS NULL AND (ready_at, id) > (to_timestamp(%s), %s)
    ORDER BY ready_at, id LIMIT %s
"""
# In:   seconds, queue, ids. A task that runs keeps the rank that memory gave it. All that is queued has a rank.
# Plan: the primary key; where the rank is asked for, the index of the ready ones would seem to be of use.
RERANK: Final[LiteralString] = """
    UPDATE asyncproc.task_live SET rank = extract(epoch FROM ready_at)::float8 - priority * %s::float8
    WHERE queue = %s AND id = ANY(%s::uuid[]) AND state = 'queued'
"""
