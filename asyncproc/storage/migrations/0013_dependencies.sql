-- Tasks that wait for tasks. The columns are null for all others: no row is rewritten, and the release before goes on
-- writing rows without them.
ALTER TABLE asyncproc.task_live
    ADD COLUMN depends_on uuid[],
    ADD COLUMN parent_refs json,
    ADD COLUMN on_parent_failure text CHECK (on_parent_failure IN ('fail', 'skip', 'run')),
    -- Of a blocked task: what its ready_at will be, unless it is released later.
    ADD COLUMN not_before timestamptz;
ALTER TABLE asyncproc.task_done
    ADD COLUMN depends_on uuid[],
    ADD COLUMN parent_refs json,
    ADD COLUMN on_parent_failure text;

-- Who waits for whom, as long as the parent has not ended.
CREATE TABLE asyncproc.task_edge (
    parent uuid NOT NULL,
    child uuid NOT NULL,
    PRIMARY KEY (parent, child)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000
);
CREATE INDEX task_edge_child ON asyncproc.task_edge (child);

-- Of these parents, those that have ended let go of their children, no more than `most` at once; a child that waits for
-- nothing else is scheduled, at the earliest for `at`. `gone` are children that ended while they waited. Returns the
-- released ones, and a null where there is more to do.
-- In statements of their own: the second must see what the first deleted.
CREATE FUNCTION asyncproc.release(parents uuid[], gone uuid[], at timestamptz, most bigint) RETURNS SETOF uuid
LANGUAGE plpgsql AS $$
DECLARE
    children uuid[];
    edges bigint;
BEGIN
    IF cardinality(gone) > 0 THEN
        DELETE FROM asyncproc.task_edge e USING unnest(gone) AS g (id)
        WHERE e.child = g.id AND NOT EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = g.id);
    END IF;
    WITH open AS MATERIALIZED (
        SELECT e.parent, e.child FROM unnest(parents) AS p (id) JOIN asyncproc.task_edge e ON e.parent = p.id
        WHERE NOT EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = p.id)
        LIMIT most
    ), cut AS (
        DELETE FROM asyncproc.task_edge e USING open o WHERE e.parent = o.parent AND e.child = o.child
        RETURNING e.child
    )
    SELECT array_agg(DISTINCT c.child), count(*) INTO children, edges FROM cut c;
    IF edges = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
        UPDATE asyncproc.task_live t
        SET state = 'scheduled', ready_at = greatest(at, t.not_before), not_before = NULL
        FROM unnest(children) AS c (id)
        WHERE t.id = c.id AND t.state = 'blocked'
        AND NOT EXISTS (SELECT FROM asyncproc.task_edge e WHERE e.child = c.id)
        RETURNING t.id;
    IF edges >= most THEN
        RETURN NEXT NULL;
    END IF;
END $$;
