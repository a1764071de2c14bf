"""What the core reads of the table."""

from typing import Final, LiteralString

# Of a payload, what is held of it, and the size of what is not.
TASK_COLUMNS: Final[LiteralString] = """
    uuid_send(id), CASE WHEN held > 0 THEN convert_to(payload::text, 'UTF8') ELSE '' END,
    pg_column_size(payload) - held, type, queue, priority, max_attempts, backoff_s, backoff_factor, backoff_cap_s,
    backoff_jitter, timeout_s, soft_timeout_s, concurrency_key, fairness_key, origins, affinity_key, resources,
    created_by, state,
    extract(epoch FROM ready_at)::float8, extract(epoch FROM created_at)::float8, coalesce(rank, 0), attempt, lease,
    losses, coalesce(worker, ''), coalesce(extract(epoch FROM start_by), 0)::float8,
    coalesce(extract(epoch FROM deadline), 0)::float8, coalesce(unique_key, ''), cancel_reason,
    coalesce(pg_column_size(checkpoint), 0)
"""
# In: bytes. A payload of more is not read: its size stands in the row itself.
HELD: Final[LiteralString] = "CASE WHEN pg_column_size(payload) <= %s THEN pg_column_size(payload) ELSE 0 END AS held"
# In:   queues, types, fairness keys, concurrency keys, resources, ranks and ids to start behind, numbers of rows, as
#       columns, one row a lane; bytes of the largest payload to read; bytes of payload a lane.
# Out:  the number of the lane from 1, and rows in rank order, of each lane at least one where there is one.
# Plan: for each lane an index scan on task_live_ready, no more rows than asked for but for those that run.
READY_PAGES: Final[LiteralString] = f"""
    SELECT w.number, t.* FROM unnest(
        %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::uuid[], %s::int[]
    ) WITH ORDINALITY AS w (
        in_queue, of_type, with_fairness_key, with_concurrency_key, with_resources, after_rank, after_id, most, number
    ) CROSS JOIN LATERAL (
        SELECT {TASK_COLUMNS} FROM (
            SELECT p.*, sum(held) OVER (ORDER BY rank, id) - held AS bytes_before
            FROM (
                SELECT *, {HELD} FROM asyncproc.task_live
                WHERE queue = w.in_queue AND type = w.of_type AND fairness_key = w.with_fairness_key
                AND concurrency_key = w.with_concurrency_key AND resources = w.with_resources AND rank IS NOT NULL
                AND (rank, id) > (w.after_rank, w.after_id) AND state = 'queued'
                ORDER BY rank, id LIMIT w.most
            ) p
        ) b WHERE bytes_before < %s ORDER BY rank, id
    ) t ORDER BY w.number
"""
# In:   bytes of the largest payload to read, instant and id to start behind, number of rows, bytes of payload.
# Out:  rows in the order of their instants, at least one where there is one, none beyond the bytes.
# Plan: index scan on task_live_due.
DUE_PAGE: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT p.*, sum(held) OVER (ORDER BY ready_at, id) - held AS bytes_before
        FROM (
            SELECT *, {HELD} FROM asyncproc.task_live
            WHERE rank IS NULL AND (ready_at, id) > (to_timestamp(%s), %s::uuid)
            AND state IN ('scheduled', 'retrying')
            ORDER BY ready_at, id LIMIT %s
        ) p
    ) b WHERE bytes_before < %s ORDER BY ready_at, id
"""
# In: bytes of the largest payload to read.
RUNNING: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (SELECT *, {HELD} FROM asyncproc.task_live WHERE state = 'running') t
"""
# In: ids. Out: id and payload of those that are not finished.
PAYLOADS: Final[LiteralString] = "SELECT id, payload::text FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])"
# In: ids. Out: id and checkpoint of those that are not finished; it may be null.
CHECKPOINTS: Final[LiteralString] = "SELECT id, checkpoint::text FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])"
# Out:  queue, type, fairness key, concurrency key, resources of each lane that has ranked rows.
# Plan: one index probe a lane, whatever the number of rows.
LANES: Final[LiteralString] = """
    WITH RECURSIVE lanes AS (
        (
            SELECT queue, type, fairness_key, concurrency_key, resources FROM asyncproc.task_live
            WHERE rank IS NOT NULL ORDER BY 1, 2, 3, 4, 5 LIMIT 1
        )
        UNION ALL
        SELECT n.* FROM lanes l CROSS JOIN LATERAL (
            SELECT t.queue, t.type, t.fairness_key, t.concurrency_key, t.resources FROM asyncproc.task_live t
            WHERE t.rank IS NOT NULL AND (t.queue, t.type, t.fairness_key, t.concurrency_key, t.resources)
                > (l.queue, l.type, l.fairness_key, l.concurrency_key, l.resources)
            ORDER BY 1, 2, 3, 4, 5 LIMIT 1
        ) n
    ) SELECT * FROM lanes
"""
# In: queue twice. Out: the same of one queue, without its name.
LANES_OF: Final[LiteralString] = """
    WITH RECURSIVE lanes AS (
        (
            SELECT type, fairness_key, concurrency_key, resources FROM asyncproc.task_live
            WHERE queue = %s AND rank IS NOT NULL ORDER BY 1, 2, 3, 4 LIMIT 1
        )
        UNION ALL
        SELECT n.* FROM lanes l CROSS JOIN LATERAL (
            SELECT t.type, t.fairness_key, t.concurrency_key, t.resources FROM asyncproc.task_live t
            WHERE t.queue = %s AND t.rank IS NOT NULL AND (t.type, t.fairness_key, t.concurrency_key, t.resources)
                > (l.type, l.fairness_key, l.concurrency_key, l.resources)
            ORDER BY 1, 2, 3, 4 LIMIT 1
        ) n
    ) SELECT * FROM lanes
"""
# In: names, levels, instants as columns.
SET_LEVELS: Final[LiteralString] = """
    INSERT INTO asyncproc.rate_level (name, level, at)
    SELECT * FROM unnest(%s::text[], %s::float8[], %s::float8[])
    ON CONFLICT (name) DO UPDATE SET level = excluded.level, at = excluded.at
"""
LEVELS: Final[LiteralString] = "SELECT name, level, at FROM asyncproc.rate_level"
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
    SELECT {TASK_COLUMNS} FROM (
        SELECT *, 0::float8 AS rank, NULL AS cancel_reason, {HELD} FROM asyncproc.task_done
    ) t
    WHERE id = %s AND finished_at >= to_timestamp(%s)
"""
