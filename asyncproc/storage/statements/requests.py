"""Tasks that callers enqueued inside transactions of their own."""

from typing import Final, LiteralString

CHANNEL: Final = "asyncproc_enqueue"
LISTEN: Final[LiteralString] = f"LISTEN {CHANNEL}"
# In:   number of rows, bytes of payload.
# Out:  committed requests in the order of their ids, at least one where there is one, none beyond the bytes; of those
#       that depend on tasks each such task is some bytes too.
# Plan: the primary key from its beginning: whatever was asked for earlier may be committed later.
WAITING: Final[LiteralString] = """
    SELECT uuid_send(id), convert_to(payload::text, 'UTF8'), type, queue, priority, backoff_s, timeout_s,
        soft_timeout_s, concurrency_key, fairness_key, created_by, affinity_key, resources,
        coalesce(extract(epoch FROM ready_at), 0)::float8,
        coalesce(extract(epoch FROM start_by), 0)::float8, coalesce(extract(epoch FROM deadline), 0)::float8,
        depends_on, on_parent_failure
    FROM (
        SELECT r.*, sum(size) OVER (ORDER BY id) - size AS bytes_before
        FROM (SELECT * FROM asyncproc.task_request ORDER BY id LIMIT %s) r
    ) b WHERE bytes_before < %s ORDER BY id
"""
# In: ids as a column. In the commit that makes tasks of them.
TAKE: Final[LiteralString] = """
    DELETE FROM asyncproc.task_request r USING unnest(%s::uuid[]) AS o (id) WHERE r.id = o.id
"""
# In: ids, causes as columns.
REFUSE: Final[LiteralString] = """
    WITH gone AS (
        DELETE FROM asyncproc.task_request r USING unnest(%s::uuid[], %s::text[]) AS o (id, cause) WHERE r.id = o.id
        RETURNING r.*, o.cause
    )
    INSERT INTO asyncproc.task_refused SELECT *, now() FROM gone
"""
# In: names.
FORGET_TYPES: Final[LiteralString] = "DELETE FROM asyncproc.task_type WHERE NOT name = ANY(%s::text[])"
# In: names, queues as columns; bytes of a payload.
KNOW_TYPES: Final[LiteralString] = """
    INSERT INTO asyncproc.task_type AS t (name, queue, max_payload_bytes)
    SELECT n.name, n.queue, m.most
    FROM unnest(%s::text[], %s::text[]) AS n (name, queue) CROSS JOIN (SELECT %s::int) AS m (most)
    ON CONFLICT (name) DO UPDATE SET queue = excluded.queue, max_payload_bytes = excluded.max_payload_bytes
    WHERE (t.queue, t.max_payload_bytes) IS DISTINCT FROM (excluded.queue, excluded.max_payload_bytes)
"""
