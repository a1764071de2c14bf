-- Tasks that wait for tasks. The columns are null for all others: no row is rewritten, and the release before goes on
-- writing rows without them. Without a CHECK, which would read all rows that are there.
ALTER TABLE asyncproc.task_live
    ADD COLUMN depends_on uuid[],
    ADD COLUMN parent_refs json,
    ADD COLUMN on_parent_failure text,
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
-- In statements of their own: the second must see what the first deleted. OFFSET 0 keeps each probe a probe: what the
-- planner once believed of a small table must not make it read all of a large one for each row.
CREATE FUNCTION asyncproc.release(parents uuid[], gone uuid[], at timestamptz, most bigint) RETURNS SETOF uuid
LANGUAGE plpgsql AS $$
DECLARE
    children uuid[];
    edges bigint;
BEGIN
    IF cardinality(gone) > 0 THEN
        DELETE FROM asyncproc.task_edge e
        WHERE e.child = ANY (gone) AND NOT EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = e.child OFFSET 0);
    END IF;
    WITH cut AS (
        DELETE FROM asyncproc.task_edge WHERE ctid = ANY (ARRAY(
            SELECT e.place FROM unnest(parents) AS p (id) CROSS JOIN LATERAL (
                SELECT ctid AS place FROM asyncproc.task_edge WHERE parent = p.id OFFSET 0
            ) e
            WHERE NOT EXISTS (SELECT FROM asyncproc.task_live t WHERE t.id = p.id OFFSET 0)
            LIMIT most
        ))
        RETURNING child
    )
    SELECT array_agg(DISTINCT child), count(*) INTO children, edges FROM cut;
    IF edges = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
        UPDATE asyncproc.task_live t
        SET state = 'scheduled', ready_at = greatest(at, t.not_before), not_before = NULL
        WHERE t.id = ANY (children) AND t.state = 'blocked'
        AND NOT EXISTS (SELECT FROM asyncproc.task_edge e WHERE e.child = t.id OFFSET 0)
        RETURNING t.id;
    IF edges >= most THEN
        RETURN NEXT NULL;
    END IF;
END $$;
