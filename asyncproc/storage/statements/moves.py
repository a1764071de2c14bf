"""What a cycle writes."""

from typing import Final, LiteralString

# What neither a claim nor an end changes.
_STAYS_BUT_READY_AT: Final[LiteralString] = """
    id, created_at, lease, priority, max_attempts, backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s,
    soft_timeout_s, type, queue, concurrency_key, fairness_key, origins, affinity_key, resources, start_by, deadline,
    unique_key, created_by, depends_on, parent_refs, on_parent_failure, payload, noted, progress, log, checkpoint"""
STAYS: Final[LiteralString] = f"{_STAYS_BUT_READY_AT}, ready_at"

# In:   ids, leases, numbers, progress, checkpoints, logs as columns; null is as it was.
# Plan: nested loop on the primary key; HOT where the page has room. A note that was overtaken changes nothing, nor does
#       one that is written again.
NOTE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t
    SET noted = o.noted, progress = coalesce(o.progress::json, t.progress),
        checkpoint = coalesce(o.checkpoint::json, t.checkpoint),
        log = asyncproc.log_with(t.log, t.log IS NOT NULL AND t.noted >> 32 = o.lease, o.log)
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[])
        AS o (id, lease, noted, progress, checkpoint, log)
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running' AND (t.noted IS NULL OR t.noted < o.noted)
"""
# In:   ids, leases, results as columns; now.
# Plan: nested loop on the primary key. The row lock of the live row makes the move happen once.
SUCCEED: Final[LiteralString] = f"""
    WITH ended AS (
        DELETE FROM asyncproc.task_live t
        USING unnest(%s::uuid[], %s::bigint[], %s::text[]) AS o (id, lease, result)
        WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
        RETURNING t.*, o.result
    )
    INSERT INTO asyncproc.task_done (
        {STAYS}, attempt, losses, started_at, worker, errors, error, finished_at, state, result
    )
    SELECT {STAYS}, attempt, losses, started_at, worker, errors, error, to_timestamp(%s), 'succeeded', result::json
    FROM ended
"""
# In: ids, leases, errors, error records as columns; now twice.
FAIL: Final[LiteralString] = f"""
    WITH ended AS (
        DELETE FROM asyncproc.task_live t
        USING unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[]) AS o (id, lease, error, record)
        WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
        RETURNING t.*, o.error AS new_error, o.record
    )
    INSERT INTO asyncproc.task_done (
        {STAYS}, attempt, losses, started_at, worker, finished_at, state, error, fingerprint, errors
    )
    SELECT {STAYS}, attempt, losses, started_at, worker, to_timestamp(%s), 'failed', new_error,
        asyncproc.fingerprint(type, new_error),
        errors || asyncproc.error_entry(attempt, started_at, to_timestamp(%s), worker, record)
    FROM ended
"""
# In: the same. A task that waited; its last attempt, if there was one, has its entry already.
FAIL_WAITING: Final[LiteralString] = FAIL.replace(
    "t.state = 'running'", "t.state IN ('queued', 'scheduled', 'retrying', 'blocked')"
)
# In: ids, leases, reasons as columns; now. Also of one that runs: its report will find no row.
CANCEL: Final[LiteralString] = f"""
    WITH ended AS (
        DELETE FROM asyncproc.task_live t
        USING unnest(%s::uuid[], %s::bigint[], %s::text[]) AS o (id, lease, reason)
        WHERE t.id = o.id AND t.lease = o.lease
        RETURNING t.*, o.reason
    )
    INSERT INTO asyncproc.task_done (
        {STAYS}, attempt, losses, started_at, worker, errors, finished_at, state, error
    )
    SELECT {STAYS}, attempt, losses, started_at, worker, errors, to_timestamp(%s), 'cancelled', reason
    FROM ended
"""
# In: ids, leases, instants, losses, errors, error records as columns; now.
RETRY: Final[LiteralString] = """
    UPDATE asyncproc.task_live t
    SET state = 'retrying', rank = NULL, ready_at = to_timestamp(o.ready_at), losses = o.losses, error = o.error,
        errors = t.errors || asyncproc.error_entry(t.attempt, t.started_at, to_timestamp(%s), t.worker, o.record)
    FROM unnest(%s::uuid[], %s::bigint[], %s::float8[], %s::int[], %s::text[], %s::text[])
        AS o (id, lease, ready_at, losses, error, record)
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
"""
# In: ids, leases, instants as columns. The attempt is given back, and none of it is an error.
SNOOZE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t
    SET state = 'scheduled', rank = NULL, ready_at = to_timestamp(o.ready_at), attempt = t.attempt - 1, losses = 0,
        worker = NULL
    FROM unnest(%s::uuid[], %s::bigint[], %s::float8[]) AS o (id, lease, ready_at)
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
"""
# In: now; ids, leases, reasons as columns.
ASK_TO_STOP: Final[LiteralString] = """
    UPDATE asyncproc.task_live t SET cancel_requested_at = to_timestamp(%s), cancel_reason = o.reason
    FROM unnest(%s::uuid[], %s::bigint[], %s::text[]) AS o (id, lease, reason)
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
"""
# In: ids, leases, losses as columns. The attempt is given back; rank and lease stay.
REQUEUE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t SET state = 'queued', attempt = t.attempt - 1, losses = o.losses, worker = NULL
    FROM unnest(%s::uuid[], %s::bigint[], %s::int[]) AS o (id, lease, losses)
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
"""
# In:   ids, instants, ranks as columns; the instant that none of them ended before. A row that is no longer among the
#       failed is left alone.
# Plan: only the partitions of failed tasks, from that instant on.
REVIVE: Final[LiteralString] = f"""
    WITH back AS (
        DELETE FROM asyncproc.task_done t
        USING unnest(%s::uuid[], %s::float8[], %s::float8[]) AS o (id, ready_at, rank)
        WHERE t.id = o.id AND t.state = 'failed' AND t.finished_at >= to_timestamp(%s)
        RETURNING t.*, o.ready_at AS new_ready_at, o.rank AS new_rank
    )
    INSERT INTO asyncproc.task_live (
        {_STAYS_BUT_READY_AT}, ready_at, rank, attempt, losses, errors, state
    )
    SELECT {_STAYS_BUT_READY_AT}, to_timestamp(new_ready_at), new_rank, 0, 0, errors, 'queued'
    FROM back
"""
# In:   ids, leases; states, priorities, queues, instants as they were; the same and ranks as they are to be: columns.
#       A row that is not as it was is left alone.
# Plan: nested loop on the primary key.
CHANGE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t
    SET state = o.state, priority = o.priority, queue = o.queue, ready_at = to_timestamp(o.ready_at), rank = o.rank
    FROM unnest(
        %s::uuid[], %s::bigint[], %s::text[], %s::int[], %s::text[], %s::float8[], %s::text[], %s::int[], %s::text[],
        %s::float8[], %s::float8[]
    ) AS o (
        id, lease, old_state, old_priority, old_queue, old_ready_at, state, priority, queue, ready_at, rank
    )
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = o.old_state AND t.priority = o.old_priority
    AND t.queue = o.old_queue AND t.ready_at = to_timestamp(o.old_ready_at)
"""
# In: ids, ranks as columns.
COME_DUE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t SET state = 'queued', rank = o.rank
    FROM unnest(%s::uuid[], %s::float8[]) AS o (id, rank)
    WHERE t.id = o.id AND t.state IN ('scheduled', 'retrying')
"""
# In:   now; ids, leases, attempts, ranks, workers as columns.
# Plan: nested loop on the primary key; HOT where the page has room: the rank is indexed, but here it only changes
#       for a task that came due in this same cycle.
CLAIM: Final[LiteralString] = """
    UPDATE asyncproc.task_live t
    SET state = 'running', lease = c.lease, attempt = c.attempt, rank = c.rank, worker = c.worker,
        started_at = to_timestamp(%s)
    FROM unnest(%s::uuid[], %s::bigint[], %s::int[], %s::float8[], %s::text[]) AS c (id, lease, attempt, rank, worker)
    WHERE t.id = c.id AND t.lease < c.lease AND t.state IN ('queued', 'scheduled', 'retrying')
"""
INSERT_COLUMNS: Final[LiteralString] = """
    (id, rank, ready_at, created_at, started_at, lease, priority, attempt, max_attempts, backoff_s, backoff_factor,
     backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, start_by, deadline, state, type, queue, concurrency_key,
     fairness_key, origins, affinity_key, resources, created_by, unique_key, worker, payload)
"""
COPY_IN: Final[LiteralString] = f"COPY asyncproc.task_live {INSERT_COLUMNS} FROM STDIN (FORMAT BINARY)"
# In: the columns of `INSERT_COLUMNS`. A row that exists is left alone.
_NEW_ROWS: Final[LiteralString] = f"""
    INSERT INTO asyncproc.task_live {INSERT_COLUMNS}
    SELECT n.id, n.rank, to_timestamp(n.ready_at), to_timestamp(n.created_at), to_timestamp(n.started_at), n.lease,
        n.priority, n.attempt, n.max_attempts, n.backoff_s, n.backoff_factor, n.backoff_cap_s, n.backoff_jitter,
        n.timeout_s, n.soft_timeout_s, to_timestamp(n.start_by), to_timestamp(n.deadline), n.state, n.type, n.queue,
        n.concurrency_key, n.fairness_key, n.origins, n.affinity_key, n.resources, n.created_by, n.unique_key,
        n.worker, n.payload::json
    FROM unnest(
        %s::uuid[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::bigint[], %s::int[], %s::int[],
        %s::int[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
        %s::float8[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::text[], %s::text[], %s::text[], %s::text[]
    ) AS n {INSERT_COLUMNS}
"""
INSERT: Final[LiteralString] = f"{_NEW_ROWS} ON CONFLICT (id) DO NOTHING"
# In:   the same, and the instant that none of them ended before.
# Plan: looks into the partitions from that instant on, hence only for a replay, which leaves what has ended alone too.
INSERT_AGAIN: Final[LiteralString] = f"""
    {_NEW_ROWS}
    WHERE NOT EXISTS (SELECT FROM asyncproc.task_done d WHERE d.id = n.id AND d.finished_at >= to_timestamp(%s))
    ON CONFLICT (id) DO NOTHING
"""
# In: ids twice, the instant that none of them ended before. Out: those that exist.
EXISTING: Final[LiteralString] = """
    SELECT id FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])
    UNION ALL SELECT id FROM asyncproc.task_done WHERE id = ANY(%s::uuid[]) AND finished_at >= to_timestamp(%s)
"""
# In: ids, leases, states as columns. Out: the ids of the live rows that are just that.
AGREEING: Final[LiteralString] = """
    SELECT t.id FROM asyncproc.task_live t JOIN unnest(%s::uuid[], %s::bigint[], %s::text[]) AS c (id, lease, state)
    ON t.id = c.id AND t.lease = c.lease AND t.state = c.state
"""
# In: ids, priorities, queues, instants as columns. Out: the ids of the live rows that wait just so.
CHANGED: Final[LiteralString] = """
    SELECT t.id FROM asyncproc.task_live t
    JOIN unnest(%s::uuid[], %s::int[], %s::text[], %s::float8[]) AS c (id, priority, queue, ready_at)
    ON t.id = c.id AND t.priority = c.priority AND t.queue = c.queue AND t.ready_at = to_timestamp(c.ready_at)
"""
# In: ids, the instant at which they ended. Out: those that were cancelled then.
CANCELLED: Final[LiteralString] = """
    SELECT id FROM asyncproc.task_done
    WHERE id = ANY(%s::uuid[]) AND state = 'cancelled' AND finished_at = to_timestamp(%s)
"""
# In: ids. Out: those that are not finished.
LIVE: Final[LiteralString] = "SELECT id FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])"
