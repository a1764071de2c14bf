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
    WHERE EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = o.child AND t.state = 'blocked')
    ON CONFLICT DO NOTHING
"""
_WAITS: Final[LiteralString] = """
    JOIN asyncproc.task_live t ON t.id = e.child AND t.state = 'blocked' AND t.on_parent_failure <> 'run'
"""
_CAUSE: Final[LiteralString] = "'task ' || parent || ', which it depends on, did not succeed'"
# In:   ids that may have ended, the instant that none of them ended before, a number of edges, now twice, the number.
# Out:  those that end because a parent of theirs did not succeed, and so on from parent to child; a null where there
#       may be more of them.
# Plan: for each id a probe of the edges, and for those that have any of the finished tasks from that instant on.
END_WITH_PARENTS: Final[LiteralString] = f"""
    WITH RECURSIVE culprit AS MATERIALIZED (
        SELECT p.id FROM unnest(%s::uuid[]) AS p (id)
        WHERE EXISTS (SELECT FROM asyncproc.task_edge e WHERE e.parent = p.id)
        AND NOT EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = p.id)
        AND NOT EXISTS (
            SELECT FROM asyncproc.task_done d
            WHERE d.id = p.id AND d.state = 'succeeded' AND d.finished_at >= to_timestamp(%s)
        )
    ), affected (child, parent) AS (
        SELECT e.child, e.parent FROM culprit c JOIN asyncproc.task_edge e ON e.parent = c.id {_WAITS}
        UNION
        SELECT e.child, e.parent FROM affected a JOIN asyncproc.task_edge e ON e.parent = a.child {_WAITS}
    ), reached AS MATERIALIZED (
        SELECT child, parent FROM affected LIMIT %s
    ), victim AS MATERIALIZED (
        SELECT DISTINCT ON (child) child, parent FROM reached ORDER BY child, parent
    ), ended AS (
        DELETE FROM asyncproc.task_live t USING victim v WHERE t.id = v.child AND t.state = 'blocked'
        RETURNING t.*, v.parent
    ), freed AS (
        DELETE FROM asyncproc.task_edge e USING ended WHERE e.child = ended.id
    ), moved AS (
    INSERT INTO asyncproc.task_done (
        {STAYS}, attempt, losses, started_at, worker, finished_at, state, error, fingerprint, errors
    )
    SELECT {STAYS}, attempt, losses, started_at, worker, to_timestamp(%s),
        CASE on_parent_failure WHEN 'fail' THEN 'failed' ELSE 'cancelled' END,
        CASE on_parent_failure WHEN 'fail' THEN 'ParentFailed: ' ELSE '' END || {_CAUSE},
        CASE on_parent_failure WHEN 'fail' THEN asyncproc.fingerprint(type, 'ParentFailed: ' || {_CAUSE}) END,
        CASE on_parent_failure WHEN 'fail' THEN errors || asyncproc.error_entry(
            attempt, started_at, to_timestamp(%s), worker,
            json_build_object('type', 'ParentFailed', 'message', {_CAUSE}, 'traceback', '')::text
        ) ELSE errors END
    FROM ended RETURNING id
    )
    SELECT id FROM moved UNION ALL SELECT NULL FROM reached HAVING count(*) >= %s
"""
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
