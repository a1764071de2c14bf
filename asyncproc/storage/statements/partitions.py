"""Partitions of finished tasks: made ahead, dropped when over."""

from typing import Final, LiteralString

SWEEP_LOCK_KEY: Final = 0x7377656570
# In: an instant, null for now; days; the states that are parted by month. The first day is that of an hour before: who
# writes may have a clock that is behind, and nothing that short ago is over.
MAKE_PARTITIONS: Final[LiteralString] = """
    SELECT asyncproc.make_partitions(
        ((coalesce(to_timestamp(%s::float8), now()) - interval '1 hour') AT TIME ZONE 'UTC')::date, %s, %s::text[]
    )
"""
# In:  states and for how many seconds each is kept, as columns.
# Out: name and state of each partition that has nothing younger, how many seconds ago its last instant was; whether it
#      is attached, and whether a sweep that was interrupted has left it half detached. Those first, of which there can
#      be one a state, then the oldest.
OVER: Final[LiteralString] = """
    SELECT name, state, extract(epoch FROM now() - until)::float8, attached, detaching FROM (
        SELECT c.relname AS name, split_part(c.relname, '_', 3) AS state, split_part(c.relname, '_', 4) AS days,
            i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS detaching
        FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
        WHERE c.relnamespace = 'asyncproc'::regnamespace AND c.relkind = 'r'
        AND c.relname ~ '^task_done_[a-z]+_[0-9]{6}([0-9]{2})?$'
    ) p CROSS JOIN LATERAL (
        SELECT CASE length(days)
            WHEN 6 THEN (to_date(days, 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC'
            ELSE (to_date(days, 'YYYYMMDD') + interval '1 day') AT TIME ZONE 'UTC'
        END AS until
    ) e JOIN unnest(%s::text[], %s::float8[]) AS k (state, kept_s) USING (state)
    WHERE make_interval(secs => kept_s) + until <= now()
    ORDER BY detaching DESC, days, state
"""
# In:   the first of some pages and the first behind them, queues, whether rows of these go or those of all others.
# Plan: these pages alone. No index has the queue, and each page is looked at once.
THIN: Final[LiteralString] = """
    DELETE FROM asyncproc.{partition} WHERE ctid >= %s::tid AND ctid < %s::tid AND (queue = ANY(%s::text[])) = %s
"""
# In: name of a partition. Out: its number of pages.
PAGES: Final[LiteralString] = """
    SELECT pg_relation_size(c.oid) / current_setting('block_size')::bigint FROM pg_class c
    WHERE c.relnamespace = 'asyncproc'::regnamespace AND c.relname = %s
"""
# The placeholders are names. Concurrently: to detach it at once would wait for every reader of finished tasks, and the
# cycle behind it. Not in a transaction. Where it is interrupted while it waits, FINALIZE takes up from there.
DETACH: Final[LiteralString] = "ALTER TABLE asyncproc.{parent} DETACH PARTITION asyncproc.{partition} CONCURRENTLY"
FINALIZE: Final[LiteralString] = "ALTER TABLE asyncproc.{parent} DETACH PARTITION asyncproc.{partition} FINALIZE"
DROP: Final[LiteralString] = "DROP TABLE asyncproc.{partition}"
# Out: whether this connection may sweep; another one does where not.
TRY_SWEEP: Final[LiteralString] = "SELECT pg_try_advisory_lock(%s)"
# The end of its session does it too, but only once the server has noticed.
END_SWEEP: Final[LiteralString] = "SELECT pg_advisory_unlock(%s)"
