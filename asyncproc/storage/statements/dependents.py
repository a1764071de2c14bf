"""Tasks that wait for tasks. All of these may be repeated: the second time they change nothing."""

from typing import Final, LiteralString

from asyncproc.storage.statements.moves import STAYS
from asyncproc.storage.statements.pages import HELD, TASK_COLUMNS

# In:   ids, parents (arrays as text), policies, names of parents, instants before which they are not to run: columns.
# Plan: nested loop on the primary key; HOT where the page has room.
NOTE: Final[LiteralString] = """
    UPDATE asyncproc.task_live t
    SET depends_on = o.depends_on::uuid[], on_parent_failure = o.policy, parent_refs = o.refs::json,
        not_before = to_timestamp(o.not_before)
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::float8[])
        AS o (id, depends_on, policy, refs, not_before)
    WHERE t.id = o.id AND t.state = 'blocked'
"""
# In:   parents, children as columns. Also of parents that have ended: their edges go in the same commit.
CONNECT: Final[LiteralString] = """
    INSERT INTO asyncproc.task_edge (parent, child)
    SELECT o.parent, o.child FROM unnest(%s::uuid[], %s::uuid[]) AS o (parent, child)
    WHERE EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = o.child AND t.state = 'blocked' OFFSET 0)
    ON CONFLICT DO NOTHING
"""
_OF_PARENT: Final[LiteralString] = """
    CROSS JOIN LATERAL (SELECT parent, child FROM asyncproc.task_edge WHERE parent = p.id OFFSET 0) e
    WHERE EXISTS (
        SELECT FROM asyncproc.task_live t
        WHERE t.id = e.child AND t.state = 'blocked' AND t.on_parent_failure <> 'run' OFFSET 0
    )
"""
# In:   ids that may have ended, the instant that none of them ended before, a number of rows.
# Out:  child, parent: tasks that have to end because a parent did not succeed, and so on from parent to child; once for
#       each such parent.
# Plan: for each id a probe of the edges, and for those that have any of the finished tasks from that instant on.
AFFECTED: Final[LiteralString] = f"""
    WITH RECURSIVE failed AS MATERIALIZED (
        SELECT p.id FROM unnest(%s::uuid[]) AS p (id)
        WHERE EXISTS (SELECT FROM asyncproc.task_edge e WHERE e.parent = p.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = p.id OFFSET 0)
        AND NOT EXISTS (
            SELECT FROM asyncproc.task_done d
            WHERE d.id = p.id AND d.state = 'succeeded' AND d.finished_at >= to_timestamp(%s) OFFSET 0
        )
    ), affected (id, parent) AS (
        SELECT e.child, e.parent FROM failed p {_OF_PARENT}
        UNION SELECT e.child, e.parent FROM affected p {_OF_PARENT}
    )
    SELECT id, parent FROM affected LIMIT %s
"""
# In:   ids, causes, errors, error records as columns; now twice.
# Plan: nested loop on the primary key.
END_WITH_PARENT: Final[LiteralString] = f"""
    WITH ended AS (
        DELETE FROM asyncproc.task_live t
        USING unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) AS o (id, cause, error, record)
        WHERE t.id = o.id AND t.state = 'blocked'
        RETURNING t.*, o.cause, o.error AS new_error, o.record, t.on_parent_failure = 'fail' AS fails
    )
    INSERT INTO asyncproc.task_done (
        {STAYS}, attempt, losses, started_at, worker, finished_at, state, error, fingerprint, errors
    )
    SELECT {STAYS}, attempt, losses, started_at, worker, to_timestamp(%s),
        CASE WHEN fails THEN 'failed' ELSE 'cancelled' END, CASE WHEN fails THEN new_error ELSE cause END,
        CASE WHEN fails THEN asyncproc.fingerprint(type, new_error) END,
        CASE WHEN fails THEN
            errors || asyncproc.error_entry(attempt, started_at, to_timestamp(%s), worker, record)
        ELSE errors END
    FROM ended
"""
# In: ids. These wait for nobody any more.
FREE: Final[LiteralString] = "DELETE FROM asyncproc.task_edge WHERE child = ANY(%s::uuid[])"
# In: ids that may have ended, ids of those that ended while they waited, now, a number of edges. Out: see the function.
RELEASE: Final[LiteralString] = "SELECT asyncproc.release(%s, %s, to_timestamp(%s), %s)"
# In:   bytes of the largest payload to read, ids, bytes of payload.
# Out:  those that are scheduled, in the order of their instants, none beyond the bytes.
# Plan: the primary key.
RELEASED: Final[LiteralString] = f"""
    SELECT {TASK_COLUMNS} FROM (
        SELECT p.*, sum(held) OVER (ORDER BY ready_at, id) - held AS bytes_before
        FROM (
            SELECT *, {HELD} FROM asyncproc.task_live WHERE id = ANY(%s::uuid[]) AND state = 'scheduled'
        ) p
    ) b WHERE bytes_before < %s ORDER BY ready_at, id
"""
ANY: Final[LiteralString] = "SELECT EXISTS (SELECT FROM asyncproc.task_edge)"
# Out: parents that are not there any more, or have ended, and have children all the same. Reads all edges.
OWED: Final[LiteralString] = """
    SELECT DISTINCT e.parent FROM asyncproc.task_edge e
    WHERE NOT EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = e.parent)
"""
# In: child, a number. Out: parents that it waits for, each with its state.
WAITS_FOR: Final[LiteralString] = """
    SELECT t.id, t.state FROM asyncproc.task_edge e JOIN asyncproc.task_live t ON t.id = e.parent
    WHERE e.child = %s LIMIT %s
"""
# In: the number of the first parent from 1, and of the last; id. Out: these parents, how many there are, their names.
PARENTS_OF: Final[LiteralString] = """
    SELECT depends_on[%s:%s], coalesce(cardinality(depends_on), 0), parent_refs::text
    FROM asyncproc.task_live WHERE id = %s
"""
# In:   ids twice, the instant that none of them ended before, bytes of results as they are stored.
# Out:  id, state, result, error of each, in their order, at least one; no state where there is no such task.
PARENTS: Final[LiteralString] = """
    SELECT id, state, result::text, error FROM (
        SELECT p.id, coalesce(t.state, d.state) AS state, d.result, d.error, p.number,
            sum(coalesce(pg_column_size(d.result), 0)) OVER (ORDER BY p.number)
                - coalesce(pg_column_size(d.result), 0) AS bytes_before
        FROM unnest(%s::uuid[]) WITH ORDINALITY AS p (id, number)
        LEFT JOIN asyncproc.task_live t ON t.id = p.id
        LEFT JOIN (
            SELECT id, state, result, error FROM asyncproc.task_done
            WHERE id = ANY(%s::uuid[]) AND finished_at >= to_timestamp(%s)
        ) d ON d.id = p.id
    ) s WHERE bytes_before < %s ORDER BY number
"""
