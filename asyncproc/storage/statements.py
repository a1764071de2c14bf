"""Every statement, each with what goes in, what comes out, and the plan it relies on."""

from typing import Final, LiteralString

LOCK_KEY: Final = 0x617379636E63
"""The advisory lock that a takeover holds exclusively and every cycle shared."""
SWEEP_LOCK_KEY: Final = 0x7377656570

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

# In:   ids, leases, results as columns; now.
# Plan: nested loop on the primary key. The row lock of the live row makes the move happen once.
SUCCEED: Final[LiteralString] = """
    WITH ended AS (
        DELETE FROM asyncproc.task_live t
        USING unnest(%s::uuid[], %s::bigint[], %s::text[]) AS o (id, lease, result)
        WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
        RETURNING t.*, o.result
    )
    INSERT INTO asyncproc.task_done (
        id, ready_at, created_at, started_at, finished_at, lease, priority, attempt, losses, max_attempts,
        backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, state, type, queue,
        created_by, worker, error, errors, payload, result
    )
    SELECT id, ready_at, created_at, started_at, to_timestamp(%s), lease, priority, attempt, losses, max_attempts,
        backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, 'succeeded', type, queue,
        created_by, worker, error, errors, payload, result::json
    FROM ended
"""
# In: ids, leases, errors, error records as columns; now twice.
FAIL: Final[LiteralString] = """
    WITH ended AS (
        DELETE FROM asyncproc.task_live t
        USING unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[]) AS o (id, lease, error, record)
        WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
        RETURNING t.*, o.error AS new_error, o.record
    )
    INSERT INTO asyncproc.task_done (
        id, ready_at, created_at, started_at, finished_at, lease, priority, attempt, losses, max_attempts,
        backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, state, type, queue,
        created_by, worker, error, errors, payload
    )
    SELECT id, ready_at, created_at, started_at, to_timestamp(%s), lease, priority, attempt, losses, max_attempts,
        backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, 'failed', type, queue,
        created_by, worker, new_error,
        errors || asyncproc.error_entry(attempt, started_at, to_timestamp(%s), worker, record), payload
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
# In: ids, leases, losses as columns. The attempt is given back; rank and lease stay.
REQUEUE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t SET state = 'queued', attempt = t.attempt - 1, losses = o.losses, worker = NULL
    FROM unnest(%s::uuid[], %s::bigint[], %s::int[]) AS o (id, lease, losses)
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = 'running'
"""
# In:   ids, instants, ranks as columns; the instant that none of them ended before. A row that is no longer among the
#       failed is left alone.
# Plan: only the partitions of failed tasks, from that instant on.
REVIVE: Final[LiteralString] = """
    WITH back AS (
        DELETE FROM asyncproc.task_done t
        USING unnest(%s::uuid[], %s::float8[], %s::float8[]) AS o (id, ready_at, rank)
        WHERE t.id = o.id AND t.state = 'failed' AND t.finished_at >= to_timestamp(%s)
        RETURNING t.*, o.ready_at AS new_ready_at, o.rank AS new_rank
    )
    INSERT INTO asyncproc.task_live (
        id, rank, ready_at, created_at, lease, priority, attempt, losses, max_attempts,
        backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, state, type, queue,
        created_by, errors, payload
    )
    SELECT id, new_rank, to_timestamp(new_ready_at), created_at, lease, priority, 0, 0, max_attempts,
        backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, 'queued', type, queue,
        created_by, errors, payload
    FROM back
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
     backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, state, type, queue, created_by, worker, payload)
"""
COPY_IN: Final[LiteralString] = f"COPY asyncproc.task_live {INSERT_COLUMNS} FROM STDIN (FORMAT BINARY)"
# In: the columns of `INSERT_COLUMNS`. A row that exists is left alone.
_NEW_ROWS: Final[LiteralString] = f"""
    INSERT INTO asyncproc.task_live {INSERT_COLUMNS}
    SELECT n.id, n.rank, to_timestamp(n.ready_at), to_timestamp(n.created_at), to_timestamp(n.started_at), n.lease,
        n.priority, n.attempt, n.max_attempts, n.backoff_s, n.backoff_factor, n.backoff_cap_s, n.backoff_jitter,
        n.timeout_s, n.soft_timeout_s, n.state, n.type, n.queue, n.created_by, n.worker, n.payload::json
    FROM unnest(
        %s::uuid[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::bigint[], %s::int[], %s::int[],
        %s::int[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::text[],
        %s::text[], %s::text[], %s::text[], %s::text[], %s::text[]
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

# Of a payload, what is held of it, and the size of what is not.
TASK_COLUMNS: Final[LiteralString] = """
    uuid_send(id), CASE WHEN held > 0 THEN convert_to(payload::text, 'UTF8') ELSE '' END,
    pg_column_size(payload) - held, type, queue, priority, max_attempts, backoff_s, backoff_factor, backoff_cap_s,
    backoff_jitter, timeout_s, soft_timeout_s, created_by, state, extract(epoch FROM ready_at)::float8,
    extract(epoch FROM created_at)::float8, coalesce(rank, 0), attempt, lease, losses, coalesce(worker, '')
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
# In: ids. Out: those that are not finished.
LIVE: Final[LiteralString] = "SELECT id FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])"
# In: an instant, null for now; days; the states that are parted by month. The first day is that of an hour before: who
# writes may have a clock that is behind, and nothing that short ago is over.
MAKE_PARTITIONS: Final[LiteralString] = """
    SELECT asyncproc.make_partitions(
        ((coalesce(to_timestamp(%s::float8), now()) - interval '1 hour') AT TIME ZONE 'UTC')::date, %s, %s::text[]
    )
"""
# In:  states and for how many seconds each is kept, as columns.
# Out: name and state of each partition that has nothing younger; whether it is attached, and whether a sweep that was
#      interrupted has left it half detached. Those first, of which there can be one a state, then the oldest.
OVER: Final[LiteralString] = """
    SELECT name, state, attached, detaching FROM (
        SELECT c.relname AS name, split_part(c.relname, '_', 3) AS state, split_part(c.relname, '_', 4) AS days,
            i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS detaching
        FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
        WHERE c.relnamespace = 'asyncproc'::regnamespace AND c.relkind = 'r'
        AND c.relname ~ '^task_done_[a-z]+_[0-9]{6}([0-9]{2})?$'
    ) p JOIN unnest(%s::text[], %s::float8[]) AS k (state, kept_s) USING (state)
    WHERE make_interval(secs => kept_s) + CASE length(days)
        WHEN 6 THEN (to_date(days, 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC'
        ELSE (to_date(days, 'YYYYMMDD') + interval '1 day') AT TIME ZONE 'UTC'
    END <= now()
    ORDER BY detaching DESC, days, state
"""
# The placeholders are names. Concurrently: to detach it at once would wait for every reader of finished tasks, and the
# cycle behind it. Not in a transaction. Where it is interrupted while it waits, FINALIZE takes up from there.
DETACH: Final[LiteralString] = "ALTER TABLE asyncproc.{parent} DETACH PARTITION asyncproc.{partition} CONCURRENTLY"
FINALIZE: Final[LiteralString] = "ALTER TABLE asyncproc.{parent} DETACH PARTITION asyncproc.{partition} FINALIZE"
DROP: Final[LiteralString] = "DROP TABLE asyncproc.{partition}"
# Out: whether this connection may sweep; another one does where not.
TRY_SWEEP: Final[LiteralString] = "SELECT pg_try_advisory_lock(%s)"

RECORD_COLUMNS: Final[LiteralString] = """
    id, type, queue, state, priority, attempt, max_attempts, extract(epoch FROM created_at)::float8,
    extract(epoch FROM ready_at)::float8, extract(epoch FROM started_at)::float8, created_by, backoff_s, timeout_s,
    soft_timeout_s, worker, error, array_to_json(errors)::text, payload::text
"""
_LIVE_RECORD: Final[LiteralString] = f"SELECT {RECORD_COLUMNS}, NULL::float8, NULL FROM asyncproc.task_live"
_DONE_RECORD: Final[LiteralString] = f"""
    SELECT {RECORD_COLUMNS}, extract(epoch FROM finished_at)::float8, result::text FROM asyncproc.task_done"""

# In: id twice, the instant that it did not end before. Out: at most one row.
RECORD: Final[LiteralString] = f"""
    {_LIVE_RECORD} WHERE id = %s UNION ALL {_DONE_RECORD} WHERE id = %s AND finished_at >= to_timestamp(%s) LIMIT 1
"""
_FILTER: Final[LiteralString] = """
    WHERE id < %(before)s::uuid
    AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(type)s::text IS NULL OR type = %(type)s)
    AND (%(queue)s::text IS NULL OR queue = %(queue)s) AND (%(priority)s::int IS NULL OR priority = %(priority)s)
    AND (%(created_by)s::text IS NULL OR created_by = %(created_by)s)
    ORDER BY id DESC LIMIT %(limit)s
"""
# In:   the fields of a filter, null where it does not ask; an id to end before; a number of rows.
# Plan: the primary keys backwards; a filter that few rows pass reads more of them, within the reader's time limit.
RECORDS: Final[LiteralString] = f"""
    SELECT * FROM (({_LIVE_RECORD} {_FILTER}) UNION ALL ({_DONE_RECORD} {_FILTER})) t ORDER BY id DESC LIMIT %(limit)s
"""
# In: bytes of the largest payload to read, id, the instant that it did not end before.
# Out: the finished task as the core takes it.
FINISHED_TASK: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (SELECT *, 0::float8 AS rank, {_HELD} FROM asyncproc.task_done) t
    WHERE id = %s AND finished_at >= to_timestamp(%s)
"""
# Out: state, queue, type, number of tasks, mean seconds from start to end, seconds the oldest has waited.
FIGURES: Final[LiteralString] = """
    SELECT state, queue, type, count(*), NULL::float8,
        max(CASE WHEN state = 'queued' THEN extract(epoch FROM now() - ready_at) END)::float8
    FROM asyncproc.task_live GROUP BY 1, 2, 3
    UNION ALL
    SELECT state, queue, type, count(*), avg(extract(epoch FROM finished_at - started_at))::float8, NULL
    FROM asyncproc.task_done GROUP BY 1, 2, 3
"""
