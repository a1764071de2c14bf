"""What the core reads of the table."""

from typing import Final, LiteralString

# Of a payload, what is held of it, and the size of what is not.
TASK_COLUMNS: Final[LiteralString] = """
    uuid_send(id), CASE WHEN held > 0 THEN convert_to(payload::text, 'UTF8') ELSE '' END,
    pg_column_size(payload) - held, type, queue, priority, max_attempts, backoff_s, backoff_factor, backoff_cap_s,
    backoff_jitter, timeout_s, soft_timeout_s, concurrency_key, fairness_key, created_by, state,
    extract(epoch FROM ready_at)::float8, extract(epoch FROM created_at)::float8, coalesce(rank, 0), attempt, lease,
    losses, coalesce(worker, ''), coalesce(extract(epoch FROM start_by), 0)::float8,
    coalesce(extract(epoch FROM deadline), 0)::float8, coalesce(unique_key, '')
"""
# In: bytes. A payload of more is not read: its size stands in the row itself.
_HELD: Final[LiteralString] = "CASE WHEN pg_column_size(payload) <= %s THEN pg_column_size(payload) ELSE 0 END AS held"
# In:   bytes of the largest payload to read, queue, rank and id to start behind, number of rows, bytes of payload.
# Out:  rows in rank order, at least one where there is one, none beyond the bytes.
# Plan: index scan on task_live_ready, no more rows than asked for but for those that run.
READY_PAGE: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT p.*, sum(held) OVER (ORDER BY rank, id) - held AS bytes_before
        FROM (
            SELECT *, {_HELD} FROM asyncproc.task_live
            WHERE queue = %s AND rank IS NOT NULL AND (rank, id) > (%s, %s::uuid) AND state = 'queued'
            ORDER BY rank, id LIMIT %s
        ) p
    ) b WHERE bytes_before < %s ORDER BY rank, id
"""
# In, out, plan: as above, by the instant and on task_live_due.
DUE_PAGE: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT p.*, sum(held) OVER (ORDER BY ready_at, id) - held AS bytes_before
        FROM (
            SELECT *, {_HELD} FROM asyncproc.task_live
            WHERE rank IS NULL AND (ready_at, id) > (to_timestamp(%s), %s::uuid)
            AND state IN ('scheduled', 'retrying')
            ORDER BY ready_at, id LIMIT %s
        ) p
    ) b WHERE bytes_before < %s ORDER BY ready_at, id
"""
# In: bytes of the largest payload to read.
RUNNING: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (SELECT *, {_HELD} FROM asyncproc.task_live WHERE state = 'running') t
"""
# In: ids. Out: id and payload of those that are not finished.
PAYLOADS: Final[LiteralString] = "SELECT id, payload::text FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])"
# Plan: one index probe a queue, whatever the number of rows.
QUEUE_NAMES: Final[LiteralString] = """
    WITH RECURSIVE names AS (
        (SELECT queue FROM asyncproc.task_live WHERE rank IS NOT NULL ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT t.queue FROM asyncproc.task_live t WHERE t.rank IS NOT NULL AND t.queue > names.queue
                ORDER BY t.queue LIMIT 1)
        FROM names WHERE names.queue IS NOT NULL
    ) SELECT queue FROM names WHERE queue IS NOT NULL
"""
# Out: name, seconds: what the ranks on disk were computed with; the empty name stands for all queues not named.
AGINGS: Final[LiteralString] = "SELECT name, aging_s FROM asyncproc.queue"
# In: name, seconds.
SET_AGING: Final[LiteralString] = """
    INSERT INTO asyncproc.queue (name, aging_s) VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET aging_s = excluded.aging_s
"""
# In: names. All others go.
KEEP_AGINGS: Final[LiteralString] = "DELETE FROM asyncproc.queue WHERE name <> ALL(%s::text[])"
# In: seconds, queue.
RERANK: Final[LiteralString] = """
    UPDATE asyncproc.task_live SET rank = extract(epoch FROM ready_at)::float8 - priority * %s::float8
    WHERE queue = %s AND rank IS NOT NULL
"""
# In: bytes of the largest payload to read, id, the instant that it did not end before.
# Out: the finished task as the core takes it.
FINISHED_TASK: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (SELECT *, 0::float8 AS rank, {_HELD} FROM asyncproc.task_done) t
    WHERE id = %s AND finished_at >= to_timestamp(%s)
"""
