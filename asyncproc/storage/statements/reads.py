"""What people read of the tables."""

from typing import Final, LiteralString

RECORD_COLUMNS: Final[LiteralString] = """
    id, type, queue, state, priority, attempt, max_attempts, extract(epoch FROM created_at)::float8,
    extract(epoch FROM ready_at)::float8, extract(epoch FROM started_at)::float8, created_by, backoff_s, timeout_s,
    soft_timeout_s, worker, error, concurrency_key, fairness_key, origins, array_to_json(errors)::text, payload::text
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
