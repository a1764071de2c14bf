"""Schedules, how far they are, and their ticks."""

from typing import Final, LiteralString

# In: ids, schedules, instants, kinds, outcomes, instants of the decisions, as columns. Of what is there already only a
# tick that waits becomes something else.
DECIDE: Final[LiteralString] = """
    INSERT INTO asyncproc.tick AS t (task_id, schedule, due_at, kind, outcome, decided_at)
    SELECT n.task_id, n.schedule, to_timestamp(n.due_at), n.kind, n.outcome, to_timestamp(n.decided_at)
    FROM unnest(%s::uuid[], %s::text[], %s::float8[], %s::text[], %s::text[], %s::float8[])
        AS n (task_id, schedule, due_at, kind, outcome, decided_at)
    ON CONFLICT (task_id) DO UPDATE SET outcome = excluded.outcome, decided_at = excluded.decided_at
    WHERE t.outcome = 'waiting'
"""
# In: names, stamps, instants, ids of tasks as text or null, as columns.
MOVE: Final[LiteralString] = """
    INSERT INTO asyncproc.schedule_position AS p (name, stamp, position, last_task)
    SELECT n.name, n.stamp, to_timestamp(n.position), n.last_task::uuid
    FROM unnest(%s::text[], %s::text[], %s::float8[], %s::text[]) AS n (name, stamp, position, last_task)
    ON CONFLICT (name) DO UPDATE
    SET stamp = excluded.stamp, position = excluded.position, last_task = excluded.last_task
"""
# In: names.
FORGET: Final[LiteralString] = "DELETE FROM asyncproc.schedule_position WHERE name = ANY(%s::text[])"
# Out: name, stamp, instant, id of the last task, whether that one has not ended.
POSITIONS: Final[LiteralString] = """
    SELECT p.name, p.stamp, extract(epoch FROM p.position)::float8, p.last_task, l.id IS NOT NULL
    FROM asyncproc.schedule_position p LEFT JOIN asyncproc.task_live l ON l.id = p.last_task
"""
# Out:  schedule, id, instant, kind of ticks that wait, in their order.
# Plan: index scan on tick_waiting.
WAITING: Final[LiteralString] = """
    SELECT schedule, task_id, extract(epoch FROM due_at)::float8, kind
    FROM asyncproc.tick WHERE outcome = 'waiting' ORDER BY schedule, due_at, task_id
"""
# In: ids. Out: those of them that are decided.
DECIDED: Final[LiteralString] = "SELECT task_id FROM asyncproc.tick WHERE task_id = ANY(%s::uuid[])"

# Out: name, version, settings, pause.
STORED: Final[LiteralString] = "SELECT name, version, settings::text, pause::text FROM asyncproc.schedule"
ONE: Final[LiteralString] = """
    SELECT name, version, settings::text, pause::text FROM asyncproc.schedule WHERE name = %s
"""
# In: name, settings. Changes no row where there is one.
CREATE: Final[LiteralString] = """
    INSERT INTO asyncproc.schedule (name, version, settings) VALUES (%s, 1, %s::json) ON CONFLICT DO NOTHING
"""
# In: settings, name, the version that they were made from.
REPLACE: Final[LiteralString] = """
    UPDATE asyncproc.schedule SET settings = %s::json, version = version + 1 WHERE name = %s AND version = %s
"""
# In: name, pause or null. A pause is no change of what was said: the version stays.
PAUSE: Final[LiteralString] = """
    INSERT INTO asyncproc.schedule (name, version, settings, pause) VALUES (%s, 1, '{}', %s::json)
    ON CONFLICT (name) DO UPDATE SET pause = excluded.pause
"""
DELETE: Final[LiteralString] = "DELETE FROM asyncproc.schedule WHERE name = %s"

# In:   names, number of rows a schedule.
# Out:  schedule, id, instant, kind, outcome, instant of the decision of the last ticks, the newest first.
# Plan: for each schedule an index scan on tick_schedule, backwards.
LAST_TICKS: Final[LiteralString] = """
    SELECT n.name, t.* FROM unnest(%s::text[]) AS n (name) CROSS JOIN LATERAL (
        SELECT task_id, extract(epoch FROM due_at)::float8, kind, outcome, extract(epoch FROM decided_at)::float8
        FROM asyncproc.tick WHERE schedule = n.name ORDER BY decided_at DESC, task_id DESC LIMIT %s
    ) t
"""
# In:   instant, number of rows: no more are deleted. What waits stays.
# Plan: the index on the instant.
FORGET_TICKS: Final[LiteralString] = """
    DELETE FROM asyncproc.tick WHERE task_id IN (
        SELECT task_id FROM asyncproc.tick
        WHERE decided_at < now() - make_interval(secs => %s) AND outcome <> 'waiting'
        ORDER BY decided_at LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""
