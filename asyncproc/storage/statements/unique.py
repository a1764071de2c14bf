"""Unique keys."""

from typing import Final, LiteralString

from asyncproc.storage.statements.pages import TASK_COLUMNS

_OF_KEY: Final[LiteralString] = """
    t.unique_key = w.key AND t.type = w.type AND t.created_at >= to_timestamp(w.since)"""


def _ended(state: LiteralString, place: LiteralString) -> LiteralString:
    # By the state's own name, and not by a column: only so the partitions of other states are left out. The first
    # condition knows nothing of the table, and where it does not hold none is read.
    return f"""
        (
            SELECT id, state, priority, queue, {place} AS place FROM asyncproc.task_done t
            WHERE '{state}' = ANY(w.states) AND t.state = '{state}' AND {_OF_KEY}
            AND t.finished_at >= to_timestamp(w.since) LIMIT 1
        )"""


# In:   ids, leases; states, priorities, queues, instants as they were; states, instants, ranks as they are to be; what
#       an insert has too: columns. Type and key stay as they are. A row that is not as it was is left alone.
# Plan: nested loop on the primary key.
REPLACE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t
    SET state = o.state, ready_at = to_timestamp(o.ready_at), rank = o.rank, attempt = 0, losses = 0, worker = NULL,
        priority = o.priority, max_attempts = o.max_attempts, backoff_s = o.backoff_s,
        backoff_factor = o.backoff_factor, backoff_cap_s = o.backoff_cap_s, backoff_jitter = o.backoff_jitter,
        timeout_s = o.timeout_s, soft_timeout_s = o.soft_timeout_s, start_by = to_timestamp(o.start_by),
        deadline = to_timestamp(o.deadline), queue = o.queue, concurrency_key = o.concurrency_key,
        fairness_key = o.fairness_key, origins = o.origins, affinity_key = o.affinity_key, resources = o.resources,
        created_by = o.created_by, payload = o.payload::json
    FROM unnest(
        %s::uuid[], %s::bigint[], %s::text[], %s::int[], %s::text[], %s::float8[], %s::text[], %s::float8[],
        %s::float8[], %s::int[], %s::int[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
        %s::float8[], %s::float8[], %s::float8[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::text[], %s::text[], %s::text[]
    ) AS o (
        id, lease, old_state, old_priority, old_queue, old_ready_at, state, ready_at, rank, priority, max_attempts,
        backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, timeout_s, soft_timeout_s, start_by, deadline, queue,
        concurrency_key, fairness_key, origins, affinity_key, resources, created_by, payload
    )
    WHERE t.id = o.id AND t.lease = o.lease AND t.state = o.old_state AND t.priority = o.old_priority
    AND t.queue = o.old_queue AND t.ready_at = to_timestamp(o.old_ready_at)
"""
# In:   bytes of the largest payload to read, ids. Out: the tasks that are not finished, as the core takes them.
LIVE_TASKS: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT *, CASE WHEN pg_column_size(payload) <= %s THEN pg_column_size(payload) ELSE 0 END AS held
        FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])
    ) t
"""
# In:   types, keys, states with commas between them, instants as columns.
# Out:  the number of the row from 1, id, state, priority, queue of one task with that key: rather one that waits than
#       one that runs, rather that than one that has ended.
# Plan: for each row an index scan on task_live_unique, and on task_done_unique in the partitions of the states asked
#       for, from the instant on.
HOLDERS: Final[LiteralString] = f"""
    SELECT w.number, h.id, h.state, h.priority, h.queue FROM (
        SELECT type, key, string_to_array(states, ',') AS states, since, number
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::float8[]) WITH ORDINALITY
            AS u (type, key, states, since, number)
    ) w CROSS JOIN LATERAL (
        (
            SELECT id, state, priority, queue, CASE WHEN state = 'running' THEN 1 ELSE 0 END AS place
            FROM asyncproc.task_live t WHERE t.state = ANY(w.states) AND {_OF_KEY} ORDER BY 5, id LIMIT 1
        )
        UNION ALL {_ended("succeeded", "2")} UNION ALL {_ended("failed", "3")} UNION ALL {_ended("cancelled", "4")}
        ORDER BY place LIMIT 1
    ) h
"""
