"""Operations on all tasks that match a filter: their record, and the pages in which they read the tables."""

from typing import Final, LiteralString

from asyncproc.storage.statements import filters
from asyncproc.storage.statements.pages import TASK_COLUMNS

# In: id, action, filter, arguments, rate, the last id that is meant, the instant of its making. What is there stays.
ADD: Final[LiteralString] = """
    INSERT INTO asyncproc.operation (id, action, filter, arguments, rate, upto, created_at)
    VALUES (%s, %s, %s, %s, %s, %s, to_timestamp(%s)) ON CONFLICT (id) DO NOTHING
"""
# In: seconds for which finished ones are kept.
FORGET: Final[LiteralString] = """
    DELETE FROM asyncproc.operation WHERE finished_at < now() - make_interval(secs => %s)
"""
COLUMNS: Final[LiteralString] = """
    id, action, filter, arguments, rate, state, extract(epoch FROM created_at)::float8,
    extract(epoch FROM finished_at)::float8, matched, done, skipped
"""
# Out: the columns, and the ids up to which it is done and is to be done.
RUNNING: Final[LiteralString] = f"""
    SELECT {COLUMNS}, reached, upto FROM asyncproc.operation WHERE state = 'running' ORDER BY created_at, id
"""
# In: a number.
LATEST: Final[LiteralString] = f"SELECT {COLUMNS} FROM asyncproc.operation ORDER BY created_at DESC, id DESC LIMIT %s"
# In: id.
ONE: Final[LiteralString] = f"SELECT {COLUMNS} FROM asyncproc.operation WHERE id = %s"
# In:  the id that is reached, tasks that matched, were done and were skipped since, whether that was all; id.
# Out: nothing where it was cancelled meanwhile.
ADVANCE: Final[LiteralString] = """
    UPDATE asyncproc.operation
    SET reached = %s, matched = matched + %s, done = done + %s, skipped = skipped + %s,
        state = CASE WHEN a.over THEN 'done' ELSE state END, finished_at = CASE WHEN a.over THEN clock_timestamp() END
    FROM (SELECT %s::boolean AS over) a WHERE id = %s AND state = 'running'
"""
# In: id.
CANCEL: Final[LiteralString] = """
    UPDATE asyncproc.operation SET state = 'cancelled', finished_at = clock_timestamp()
    WHERE id = %s AND state = 'running'
"""
# In:   a filter; ids after and up to which to look; the instant after which tasks were made that are not meant;
#       bytes of the largest payload to read; numbers of rows to look at, and to answer with.
# Out:  the id up to which was looked, null where that is all.
# Plan: the primary key, no more rows than are looked at.
_END: Final[LiteralString] = "WHERE id > %(after)s AND id <= %(upto)s ORDER BY id OFFSET %(look_at)s - 1 LIMIT 1"
LIVE_END: Final[LiteralString] = f"SELECT id FROM asyncproc.task_live {_END}"
DONE_END: Final[LiteralString] = f"""
    SELECT id FROM (SELECT id FROM asyncproc.task_done WHERE state = ANY(%(domain)s::text[])) t {_END}
"""
_HELD: Final[LiteralString] = """
    CASE WHEN pg_column_size(payload) <= %(largest)s THEN pg_column_size(payload) ELSE 0 END AS held
"""
_MEANT: Final[LiteralString] = """
    id > %(after)s AND id <= %(upto)s AND created_at <= to_timestamp(%(made_before)s)
"""
# Out: tasks as the core takes them, in the order of their ids.
LIVE_PAGE: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT *, {_HELD} FROM asyncproc.task_live WHERE {_MEANT} AND {filters.LIVE} ORDER BY id LIMIT %(most)s
    ) t ORDER BY id
"""
DONE_PAGE: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT *, 0::float8 AS rank, NULL AS cancel_reason, {_HELD} FROM asyncproc.task_done
        WHERE state = ANY(%(domain)s::text[]) AND {_MEANT} AND {filters.DONE} ORDER BY id LIMIT %(most)s
    ) t ORDER BY id
"""
# Out: the last id of all.
LIVE_LAST: Final[LiteralString] = "SELECT id FROM asyncproc.task_live ORDER BY id DESC LIMIT 1"
DONE_LAST: Final[LiteralString] = """
    SELECT id FROM asyncproc.task_done WHERE state = ANY(%(domain)s::text[]) ORDER BY id DESC LIMIT 1
"""
# In: ids, states, the instant that none of them ended before.
DELETE: Final[LiteralString] = """
    DELETE FROM asyncproc.task_done
    WHERE id = ANY(%s::uuid[]) AND state = ANY(%s::text[]) AND finished_at >= to_timestamp(%s)
"""
