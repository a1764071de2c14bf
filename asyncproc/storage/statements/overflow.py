"""How full the places are that have a bound: read between two commits, for the next one."""

from typing import Final, LiteralString

# In:   queue and number, twice.
# Out:  how many of its tasks wait: exact where it is below that number.
# Plan: no more rows of the queue than that number, by task_live_ready and task_live_not_ready.
COUNT: Final[LiteralString] = """
    SELECT count(*) FROM (
        (SELECT FROM asyncproc.task_live WHERE queue = %s AND rank IS NOT NULL AND state = 'queued' LIMIT %s)
        UNION ALL
        (
            SELECT FROM asyncproc.task_live
            WHERE queue = %s AND rank IS NULL AND state IN ('scheduled', 'retrying') LIMIT %s
        )
    ) w
"""
# In:   queues, concurrency keys (arrays).
# Out:  number of the key, how many of its tasks wait.
# Plan: task_live_keys.
COUNT_KEYS: Final[LiteralString] = """
    SELECT k.number, (
        SELECT count(*) FROM asyncproc.task_live t
        WHERE t.queue = k.queue AND t.concurrency_key = k.key AND t.concurrency_key <> ''
        AND t.state IN ('queued', 'scheduled', 'retrying')
    )
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS k (queue, key, number)
"""
# In:   queue, twice; number of rows.
# Out:  id, lease and key of the oldest that wait there.
# Plan: all rows of the queue, by task_live_ready and task_live_not_ready.
OLDEST: Final[LiteralString] = """
    SELECT id, lease, concurrency_key FROM (
        SELECT id, lease, concurrency_key FROM asyncproc.task_live
        WHERE queue = %s AND rank IS NOT NULL AND state = 'queued'
        UNION ALL
        SELECT id, lease, concurrency_key FROM asyncproc.task_live
        WHERE queue = %s AND rank IS NULL AND state IN ('scheduled', 'retrying')
    ) w ORDER BY id LIMIT %s
"""
# In:   queues, concurrency keys, numbers of rows (arrays).
# Out:  number of the key; the same of those that wait with it.
# Plan: task_live_keys.
OLDEST_OF_KEYS: Final[LiteralString] = """
    SELECT k.number, o.id, o.lease, o.concurrency_key
    FROM unnest(%s::text[], %s::text[], %s::int[]) WITH ORDINALITY AS k (queue, key, most, number)
    CROSS JOIN LATERAL (
        SELECT id, lease, concurrency_key FROM asyncproc.task_live t
        WHERE t.queue = k.queue AND t.concurrency_key = k.key AND t.concurrency_key <> ''
        AND t.state IN ('queued', 'scheduled', 'retrying') ORDER BY id LIMIT k.most
    ) o
"""
