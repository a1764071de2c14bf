"""Unique keys."""

from typing import Final, LiteralString

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
