-- Tasks that callers enqueue inside transactions of their own. A row here is a promise: once its transaction is committed
-- the reign makes a task of it, in the same commit that deletes the row. Nothing that was there before is touched.

-- What the reign knows of task types, written when it begins: what cannot become a task is refused to the caller at once.
CREATE TABLE asyncproc.task_type (
    name text COLLATE "C" PRIMARY KEY,
    queue text NOT NULL,
    max_payload_bytes integer NOT NULL
);

-- Null is what the caller left to others.
CREATE TABLE asyncproc.task_request (
    id uuid PRIMARY KEY,
    type text NOT NULL,
    queue text,
    priority integer,
    ready_at timestamptz,
    start_by timestamptz,
    deadline timestamptz,
    timeout_s double precision,
    soft_timeout_s double precision,
    backoff_s double precision,
    concurrency_key text NOT NULL,
    fairness_key text NOT NULL,
    created_by text NOT NULL,
    size integer NOT NULL,
    payload json NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);
ALTER TABLE asyncproc.task_request ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Requests of which Postgres keeps no task, and what it has against it: for somebody to look at. They are not among the
-- others, where a condition on them would have the planner read all rows for the first.
CREATE TABLE asyncproc.task_refused (LIKE asyncproc.task_request, cause text NOT NULL, refused_at timestamptz NOT NULL);

CREATE FUNCTION asyncproc.check_seconds(name text, value interval, most double precision) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF extract(epoch FROM value) NOT BETWEEN 0 AND most THEN
        RAISE EXCEPTION 'asyncproc.enqueue: % is %: it must be between 0 and % seconds', name, value, most
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN extract(epoch FROM value);
END $$;

CREATE FUNCTION asyncproc.check_text(name text, value text, most integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF length(value) > most THEN
        RAISE EXCEPTION 'asyncproc.enqueue: % is % characters: at most % are allowed', name, length(value), most
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN coalesce(value, '');
END $$;

-- The id says when it was made, as all ids of tasks do: a UUIDv7 with the fraction of its millisecond (RFC 9562, method
-- 3), so that the tasks of one transaction stay in their order.
CREATE FUNCTION asyncproc.new_task_id() RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(
        int8send(((micros / 1000) << 16) | 28672 | ((micros % 1000) * 4096 / 1000))
        || substring(uuid_send(gen_random_uuid()) FROM 9),
        'hex'
    )::uuid
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros) clock
$$;

-- Enqueue a task with the transaction of the caller: it exists if and only if that is committed. The payload is json,
-- jsonb or text. What is left out is up to the type and the settings, as it is over REST.
-- Callers need no right on any table: this is carried out as its owner. `SET asyncproc.notify = off` saves a transaction
-- the notification, for which Postgres lets only one commit at a time; its tasks then wait for a second at most.
CREATE FUNCTION asyncproc.enqueue(
    task_type text,
    payload anycompatible DEFAULT '{}'::json,
    queue text DEFAULT NULL,
    priority integer DEFAULT NULL,
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    start_by timestamptz DEFAULT NULL,
    deadline timestamptz DEFAULT NULL,
    timeout interval DEFAULT NULL,
    soft_timeout interval DEFAULT NULL,
    back_off interval DEFAULT NULL,
    concurrency_key text DEFAULT NULL,
    fairness_key text DEFAULT NULL,
    created_by text DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    year CONSTANT double precision := 366 * 86400;
    asked_at CONSTANT timestamptz := clock_timestamp();
    known asyncproc.task_type;
    body json;
    size integer;
    ready_at timestamptz;
    earliest timestamptz;
    wrong text;
    new_id uuid;
BEGIN
    SELECT * INTO known FROM asyncproc.task_type t WHERE t.name = task_type;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'asyncproc.enqueue: task_type is %: known are %', coalesce(quote_literal(left(task_type, 100)), 'null'),
            coalesce((SELECT string_agg(t.name, ', ' ORDER BY t.name) FROM asyncproc.task_type t), 'none')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Types are known once the system of this release is up.';
    END IF;

    -- The cast of a type that a caller made would be carried out with the rights of our owner.
    IF pg_typeof(payload) NOT IN ('json'::regtype, 'jsonb'::regtype, 'text'::regtype, 'character varying'::regtype) THEN
        RAISE EXCEPTION 'asyncproc.enqueue: payload is of type %: it must be json, jsonb or text', pg_typeof(payload)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    BEGIN
        body := payload::text::json;
        -- What is JSON and cannot be kept as text, a NUL or half a character, is always written as an escape.
        IF strpos(body::text, '\u') > 0 THEN
            PERFORM body::jsonb;
        END IF;
    EXCEPTION WHEN data_exception THEN
        RAISE EXCEPTION 'asyncproc.enqueue: payload: %', SQLERRM USING ERRCODE = 'invalid_parameter_value';
    END;
    IF json_typeof(body) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'asyncproc.enqueue: payload is %: it must be a JSON object', coalesce(json_typeof(body), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    size := octet_length(convert_to(body::text, 'UTF8'));
    IF size > known.max_payload_bytes THEN
        RAISE EXCEPTION 'asyncproc.enqueue: payload is % bytes: at most % are allowed', size, known.max_payload_bytes
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF queue !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}$' THEN
        RAISE EXCEPTION 'asyncproc.enqueue: queue is %: it must match ^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}$',
            quote_literal(left(queue, 100)) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (SELECT FROM asyncproc.draining d WHERE d.queue = coalesce(enqueue.queue, known.queue)) THEN
        RAISE EXCEPTION 'asyncproc.enqueue: queue % drains and takes no new tasks', coalesce(queue, known.queue)
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF priority NOT BETWEEN -100 AND 100 THEN
        RAISE EXCEPTION 'asyncproc.enqueue: priority is %: it must be from -100 to 100', priority
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF delay IS NOT NULL AND run_at IS NOT NULL THEN
        wrong := 'run_at stands beside delay: name one of them';
    END IF;
    ready_at := greatest(run_at, asked_at + make_interval(secs => asyncproc.check_seconds('delay', delay, year)), asked_at);
    earliest := greatest(start_by, ready_at);
    wrong := coalesce(wrong, CASE
        WHEN run_at > asked_at + make_interval(secs => year) THEN 'run_at is more than a year ahead'
        WHEN start_by > asked_at + make_interval(secs => year) THEN 'start_by is more than a year ahead'
        WHEN deadline > asked_at + make_interval(secs => year) THEN 'deadline is more than a year ahead'
        WHEN start_by < ready_at THEN format('start_by must not be before %s, when the task is ready', ready_at)
        WHEN deadline < earliest THEN format('deadline must not be before %s, when the task may begin', earliest)
    END);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'asyncproc.enqueue: %', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;

    new_id := asyncproc.new_task_id();
    INSERT INTO asyncproc.task_request (
        id, type, queue, priority, ready_at, start_by, deadline, timeout_s, soft_timeout_s, backoff_s, concurrency_key,
        fairness_key, created_by, size, payload
    ) VALUES (
        new_id, task_type, queue, priority, CASE WHEN ready_at > asked_at THEN ready_at END, start_by, deadline,
        asyncproc.check_seconds('timeout', timeout, year), asyncproc.check_seconds('soft_timeout', soft_timeout, year),
        asyncproc.check_seconds('back_off', back_off, 86400), asyncproc.check_text('concurrency_key', concurrency_key, 200),
        asyncproc.check_text('fairness_key', fairness_key, 200), asyncproc.check_text('created_by', created_by, 200),
        size, body
    );
    IF coalesce(current_setting('asyncproc.notify', true), '') IN ('', 'on', 'true', '1') THEN
        PERFORM pg_notify('asyncproc_enqueue', '');
    END IF;
    RETURN new_id;
END $$;
-- Whoever is to enqueue is granted it, and USAGE on the schema.
REVOKE ALL ON FUNCTION asyncproc.enqueue FROM PUBLIC;

-- Whether a payload contains a document, as jsonb's @> has it. What is JSON and no jsonb, an escaped NUL for one, contains
-- nothing: one such row must not fail a list of thousands.
CREATE FUNCTION asyncproc.payload_contains(payload json, part jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000 AS $$
BEGIN
    RETURN payload::jsonb @> part;
EXCEPTION WHEN data_exception THEN
    RETURN false;
END $$;
