"""What people read of the tables."""

from typing import Final, LiteralString

from asyncproc.storage.statements import filters
from asyncproc.storage.statements.pages import TASK_COLUMNS

RECORD_COLUMNS: Final[LiteralString] = """
    id, type, queue, state, priority, attempt, max_attempts, extract(epoch FROM created_at)::float8,
    extract(epoch FROM ready_at)::float8, extract(epoch FROM started_at)::float8, created_by, backoff_s, timeout_s,
    soft_timeout_s, worker, error, concurrency_key, fairness_key,
    extract(epoch FROM start_by)::float8, extract(epoch FROM deadline)::float8, origins, affinity_key, resources,
    unique_key, depends_on[1:100], coalesce(cardinality(depends_on), 0), on_parent_failure,
    array_to_json(errors)::text, payload::text
"""
_LIVE: Final[LiteralString] = f"SELECT {RECORD_COLUMNS}, NULL::float8, NULL"
_DONE: Final[LiteralString] = f"SELECT {RECORD_COLUMNS}, extract(epoch FROM finished_at)::float8, result::text"
_NOTES: Final[LiteralString] = """
    progress::text, '[' || array_to_string(array_remove(log, ''), ',') || ']', checkpoint::text
"""
_LIVE_RECORD: Final[LiteralString] = f"{_LIVE}, progress::text FROM asyncproc.task_live"
_DONE_RECORD: Final[LiteralString] = f"{_DONE}, progress::text FROM asyncproc.task_done"
# In: id twice, the instant that it did not end before. Out: at most one row.
RECORD: Final[LiteralString] = f"""
    {_LIVE}, {_NOTES} FROM asyncproc.task_live WHERE id = %s
    UNION ALL {_DONE}, {_NOTES} FROM asyncproc.task_done WHERE id = %s AND finished_at >= to_timestamp(%s) LIMIT 1
"""
_NEWEST: Final[LiteralString] = "ORDER BY id DESC LIMIT %(limit)s"
# In:   a filter; an id to end before; a number of rows.
# Plan: the primary keys backwards; a filter that few rows pass reads more of them, within the reader's time limit.
RECORDS: Final[LiteralString] = f"""
    SELECT * FROM (
        ({_LIVE_RECORD} WHERE id < %(before)s::uuid AND {filters.LIVE} {_NEWEST})
        UNION ALL ({_DONE_RECORD} WHERE id < %(before)s::uuid AND {filters.DONE} {_NEWEST})
    ) t {_NEWEST}
"""
# In: bytes of the largest payload to read, id. Out: the task as the core takes it, where it is not finished.
LIVE_TASK: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT *, CASE WHEN pg_column_size(payload) <= %s THEN pg_column_size(payload) ELSE 0 END AS held
        FROM asyncproc.task_live
    ) t WHERE id = %s
"""
# In: a filter; the states that are meant.
COUNT_LIVE: Final[LiteralString] = f"SELECT count(*) FROM asyncproc.task_live WHERE {filters.LIVE}"
COUNT_DONE: Final[LiteralString] = f"""
    SELECT count(*) FROM asyncproc.task_done WHERE state = ANY(%(domain)s::text[]) AND {filters.DONE}
"""
ANY_LIVE: Final[LiteralString] = f"SELECT EXISTS (SELECT FROM asyncproc.task_live WHERE {filters.LIVE})"
ANY_DONE: Final[LiteralString] = f"""
    SELECT EXISTS (SELECT FROM asyncproc.task_done WHERE state = ANY(%(domain)s::text[]) AND {filters.DONE})
"""
# In:   a filter; a number of groups.
# Out:  fingerprint, type, number, instants of the first and the last failure, id and error of the last task.
# Plan: task_done_failed_fingerprint, where the filter asks for nothing that is not in it.
_DEAD: Final[LiteralString] = f"type, finished_at, id FROM asyncproc.task_done_failed WHERE {filters.DONE}"
DEAD_GROUPS: Final[LiteralString] = f"""
    SELECT g.fingerprint, g.type, g.number, g.first_at, g.last_at, g.example, (
        SELECT error FROM asyncproc.task_done_failed WHERE id = g.example LIMIT 1
    ) FROM (
        SELECT fingerprint, min(type) AS type, count(*) AS number,
            extract(epoch FROM min(finished_at))::float8 AS first_at,
            extract(epoch FROM max(finished_at))::float8 AS last_at, max(id::text COLLATE "C")::uuid AS example
        FROM (
            SELECT fingerprint, {_DEAD} AND fingerprint IS NOT NULL
            UNION ALL SELECT asyncproc.fingerprint(type, error), {_DEAD} AND fingerprint IS NULL
        ) d
        GROUP BY 1 ORDER BY number DESC, 1 LIMIT %(limit)s
    ) g ORDER BY g.number DESC, 1
"""
# In: queue, rank, id. Out: type, number of the ready and running tasks of the queue that come before that place.
# Plan: task_live_ready alone, where the table was vacuumed.
AHEAD: Final[LiteralString] = """
    SELECT type, count(*) FROM asyncproc.task_live
    WHERE queue = %(queue)s AND rank IS NOT NULL AND (rank, id) < (%(rank)s, %(id)s) GROUP BY 1
"""
# Out:  names of queues that have ranked rows.
# Plan: one index probe a queue.
QUEUES: Final[LiteralString] = """
    WITH RECURSIVE queues AS (
        (SELECT queue FROM asyncproc.task_live WHERE rank IS NOT NULL ORDER BY 1 LIMIT 1)
        UNION ALL
        SELECT n.queue FROM queues q CROSS JOIN LATERAL (
            SELECT queue FROM asyncproc.task_live WHERE rank IS NOT NULL AND queue > q.queue ORDER BY 1 LIMIT 1
        ) n
    ) SELECT queue FROM queues LIMIT 1000
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
# Out:  queue, state, number of tasks; of finished ones only the failed.
# Plan: reads every row that is not finished, and every failed one.
COUNTS: Final[LiteralString] = """
    SELECT queue, state, count(*) FROM asyncproc.task_live GROUP BY 1, 2
    UNION ALL SELECT queue, state, count(*) FROM asyncproc.task_done WHERE state = 'failed' GROUP BY 1, 2
"""
# In:   queue and number, twice.
# Out:  state, number of tasks that are not finished: exact where it is below that number.
# Plan: no more rows of the queue than that number, by task_live_ready and task_live_not_ready.
SOME_COUNTS: Final[LiteralString] = """
    SELECT state, count(*) FROM (
        (SELECT state FROM asyncproc.task_live WHERE queue = %s AND rank IS NOT NULL LIMIT %s)
        UNION ALL (SELECT state FROM asyncproc.task_live WHERE queue = %s AND rank IS NULL LIMIT %s)
    ) t GROUP BY 1
"""
# In: queue. Out: the number of its tasks that wait.
WAITING: Final[LiteralString] = """
    SELECT count(*) FROM asyncproc.task_live WHERE queue = %s AND state <> 'running'
"""

# In:   bytes of the largest payload to read; an instant and a number of rows, twice.
# Out:  tasks that wait, as the core takes them, and are over by then; one may come twice.
# Plan: the indexes on the two instants, of which few rows have any.
OVERDUE: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT *, CASE WHEN pg_column_size(payload) <= %s THEN pg_column_size(payload) ELSE 0 END AS held FROM (
            (
                SELECT * FROM asyncproc.task_live WHERE start_by <= to_timestamp(%s) AND attempt = 0
                AND state IN ('queued', 'scheduled', 'retrying', 'blocked') ORDER BY start_by LIMIT %s
            )
            UNION ALL
            (
                SELECT * FROM asyncproc.task_live WHERE deadline <= to_timestamp(%s)
                AND state IN ('queued', 'scheduled', 'retrying', 'blocked') ORDER BY deadline LIMIT %s
            )
        ) o
    ) t
"""
# In: ids twice, the instant that none of them ended before.
GLIMPSES: Final[LiteralString] = """
    SELECT id, state, attempt, lease, coalesce(noted, 0) FROM asyncproc.task_live WHERE id = ANY(%s::uuid[])
    UNION ALL
    SELECT id, state, attempt, lease, coalesce(noted, 0) FROM asyncproc.task_done
    WHERE id = ANY(%s::uuid[]) AND finished_at >= to_timestamp(%s)
"""
