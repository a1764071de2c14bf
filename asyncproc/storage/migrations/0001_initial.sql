-- What is not finished lives in task_live, what is finished in task_done; finishing moves the row in one statement.

CREATE TABLE asyncproc.reign (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch bigint NOT NULL
);
INSERT INTO asyncproc.reign (epoch) VALUES (0);

-- Raises where the epoch is over. Call it in a statement of its own, after the shared lock is held: a guard inside
-- another statement reads a snapshot from before the takeover, and does not fence.
CREATE FUNCTION asyncproc.prove_epoch(mine bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    current_epoch bigint;
BEGIN
    SELECT r.epoch INTO current_epoch FROM asyncproc.reign r;
    IF current_epoch IS DISTINCT FROM mine THEN
        RAISE EXCEPTION 'epoch % is over, % reigns', mine, current_epoch USING ERRCODE = 'AP001';
    END IF;
END $$;

-- How a queue's ranks were computed; where the configuration now says otherwise, they are computed anew at takeover.
-- The empty name stands for all queues that have no row.
CREATE TABLE asyncproc.queue (
    name text PRIMARY KEY,
    aging_s double precision NOT NULL
);

CREATE TABLE asyncproc.task_live (
    id uuid PRIMARY KEY,
    rank double precision,
    ready_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    lease bigint NOT NULL DEFAULT 0,
    priority integer NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    losses integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    backoff_s double precision NOT NULL,
    backoff_factor double precision NOT NULL,
    backoff_cap_s double precision NOT NULL,
    backoff_jitter double precision NOT NULL,
    state text NOT NULL CHECK (state IN ('blocked', 'scheduled', 'queued', 'running', 'retrying')),
    type text NOT NULL,
    queue text NOT NULL,
    created_by text NOT NULL,
    worker text,
    error text,
    errors json[] NOT NULL DEFAULT '{}',
    payload json NOT NULL
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);
ALTER TABLE asyncproc.task_live ALTER COLUMN payload SET STORAGE EXTERNAL;

-- No index touches a column that a claim writes: a claim then stays on its page (HOT). The rank is null until the task
-- is ready, which parts the two orders in which rows are paged in.
CREATE INDEX task_live_ready ON asyncproc.task_live (queue, rank, id) WHERE rank IS NOT NULL;
CREATE INDEX task_live_due ON asyncproc.task_live (ready_at, id) WHERE rank IS NULL;

CREATE TABLE asyncproc.task_done (
    id uuid NOT NULL,
    ready_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    lease bigint NOT NULL,
    priority integer NOT NULL,
    attempt integer NOT NULL,
    losses integer NOT NULL,
    max_attempts integer NOT NULL,
    backoff_s double precision NOT NULL,
    backoff_factor double precision NOT NULL,
    backoff_cap_s double precision NOT NULL,
    backoff_jitter double precision NOT NULL,
    state text NOT NULL CHECK (state IN ('succeeded', 'failed', 'cancelled')),
    type text NOT NULL,
    queue text NOT NULL,
    created_by text NOT NULL,
    worker text,
    error text,
    errors json[] NOT NULL,
    payload json NOT NULL,
    result json
) PARTITION BY LIST (state);
-- By state first, then by time: each state is kept for a time of its own, and what is over goes as a whole partition.
CREATE TABLE asyncproc.task_done_succeeded PARTITION OF asyncproc.task_done (PRIMARY KEY (id, finished_at))
    FOR VALUES IN ('succeeded') PARTITION BY RANGE (finished_at);
CREATE TABLE asyncproc.task_done_failed PARTITION OF asyncproc.task_done (PRIMARY KEY (id, finished_at))
    FOR VALUES IN ('failed') PARTITION BY RANGE (finished_at);
CREATE TABLE asyncproc.task_done_cancelled PARTITION OF asyncproc.task_done (PRIMARY KEY (id, finished_at))
    FOR VALUES IN ('cancelled') PARTITION BY RANGE (finished_at);

-- One entry of `errors`: what the table knows of the attempt, then the members of the record that the worker sent.
-- They are joined as text and never read: an escaped NUL is valid JSON, and every function that reads JSON fails on it.
CREATE FUNCTION asyncproc.error_entry(
    attempt integer, started_at timestamptz, failed_at timestamptz, worker text, record text
) RETURNS json LANGUAGE sql AS $$
    SELECT (
        left(json_build_object(
            'attempt', attempt, 'startedAt', started_at, 'failedAt', failed_at, 'worker', worker
        )::text, -1) || ', ' || substr(ltrim(record), 2)
    )::json
$$;

-- One partition a day and state, in UTC; one a month for the states in `monthly`: kept for years, days would be too many
-- to look through. Making what exists changes nothing, and a month that has days already goes on with days.
-- Made first and attached then: creating it as a partition would wait for every reader of the parent, a backup of hours
-- included, and all others behind it.
CREATE FUNCTION asyncproc.make_partitions(from_day date, days integer, monthly text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    state text;
    day date;
    month_name text;
    day_name text;
    is_month boolean;
    first_day date;
    end_day date;
    partition_name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('asyncproc.make_partitions', 0));
    FOREACH state IN ARRAY ARRAY['succeeded', 'failed', 'cancelled'] LOOP
        FOR offset_days IN 0 .. days - 1 LOOP
            day := from_day + offset_days;
            month_name := format('task_done_%s_%s', state, to_char(day, 'YYYYMM'));
            day_name := month_name || to_char(day, 'DD');
            CONTINUE WHEN to_regclass('asyncproc.' || month_name) IS NOT NULL
                OR to_regclass('asyncproc.' || day_name) IS NOT NULL;
            is_month := state = ANY (monthly) AND NOT EXISTS (
                SELECT FROM pg_class c
                WHERE c.relnamespace = 'asyncproc'::regnamespace AND c.relname ~ ('^' || month_name || '\d\d$')
            );
            first_day := CASE WHEN is_month THEN date_trunc('month', day::timestamp)::date ELSE day END;
            end_day := first_day + CASE WHEN is_month THEN interval '1 month' ELSE interval '1 day' END;
            partition_name := CASE WHEN is_month THEN month_name ELSE day_name END;
            EXECUTE format(
                'CREATE TABLE asyncproc.%I (LIKE asyncproc.task_done INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                partition_name
            );
            EXECUTE format(
                'ALTER TABLE asyncproc.%I ATTACH PARTITION asyncproc.%I FOR VALUES FROM (%L) TO (%L)',
                'task_done_' || state, partition_name,
                first_day::timestamp AT TIME ZONE 'UTC', end_day::timestamp AT TIME ZONE 'UTC'
            );
        END LOOP;
    END LOOP;
END $$;
