-- A task that is asked for in a transaction of the caller's may say all that one asked for over REST may, but for what
-- the answer of REST is about. Null is what the caller left to others.
ALTER TABLE asyncproc.task_request
    ADD COLUMN affinity_key text NOT NULL DEFAULT '',
    ADD COLUMN resources text,
    ADD COLUMN depends_on uuid[],
    ADD COLUMN on_parent_failure text;

-- Made anew and not added to: its columns are in the order of those of task_request, by which rows come here, those of
-- the release before too.
ALTER TABLE asyncproc.task_refused RENAME TO task_refused_before;
CREATE TABLE asyncproc.task_refused (LIKE asyncproc.task_request, cause text NOT NULL, refused_at timestamptz NOT NULL);
INSERT INTO asyncproc.task_refused (
    id, type, queue, priority, ready_at, start_by, deadline, timeout_s, soft_timeout_s, backoff_s, concurrency_key,
    fairness_key, created_by, size, payload, affinity_key, cause, refused_at
)
SELECT id, type, queue, priority, ready_at, start_by, deadline, timeout_s, soft_timeout_s, backoff_s, concurrency_key,
    fairness_key, created_by, size, payload, '', cause, refused_at
FROM asyncproc.task_refused_before;
DROP TABLE asyncproc.task_refused_before;

-- What is asked of a worker as the one text that stands for it (asyncproc.core.shape, by which a test compares it).
CREATE FUNCTION asyncproc.shape_text(asked jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mib CONSTANT numeric := 1048576;
    wrong text;
    item record;
    part text[];
    amount numeric;
    number text;
    bytes numeric;
    cpus text := '';
    gpus text := '';
    memory text := '';
    custom text[] := '{}';
    shape text;
BEGIN
    IF asked IS NULL THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(asked) <> 'object' THEN
        RAISE EXCEPTION 'asyncproc.enqueue: resources is %: it must be a JSON object', jsonb_typeof(asked)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR item IN SELECT key, value, jsonb_typeof(value) AS kind, value #>> '{}' AS said FROM jsonb_each(asked) LOOP
        IF item.key = 'memory' THEN
            part := regexp_match(
                CASE WHEN item.kind IN ('number', 'string') THEN btrim(item.said) END,
                CASE item.kind
                    WHEN 'number' THEN '^(\d{1,16})()$' ELSE '^(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})$'
                END
            );
            bytes := part[1]::numeric * CASE upper(part[2])
                WHEN '' THEN 1 WHEN 'B' THEN 1 WHEN 'K' THEN 1e3 WHEN 'KB' THEN 1e3 WHEN 'M' THEN 1e6 WHEN 'MB' THEN 1e6
                WHEN 'G' THEN 1e9 WHEN 'GB' THEN 1e9 WHEN 'T' THEN 1e12 WHEN 'TB' THEN 1e12 WHEN 'KIB' THEN 1024
                WHEN 'MIB' THEN mib WHEN 'GIB' THEN mib * 1024 WHEN 'TIB' THEN mib * mib
            END;
            IF bytes IS NULL OR bytes > mib * mib * 1024 THEN
                wrong := 'it must be bytes such as 2GiB, from 0 to 1024TiB';
                EXIT;
            END IF;
            -- In whole MiB: shapes that differ by less are one.
            bytes := ceil(bytes / mib);
            memory := CASE
                WHEN bytes = 0 THEN ''
                WHEN bytes % mib = 0 THEN 'mem' || trunc(bytes / mib) || 'TiB'
                WHEN bytes % 1024 = 0 THEN 'mem' || trunc(bytes / 1024) || 'GiB'
                ELSE 'mem' || bytes || 'MiB'
            END;
            CONTINUE;
        END IF;
        IF item.key NOT IN ('num_cpus', 'numCpus', 'num_gpus', 'numGpus') AND (
            item.key !~ '^[A-Za-z_][A-Za-z0-9_.:-]{0,49}$'
            OR item.key IN ('CPU', 'GPU', 'object_store_memory', 'cpu', 'gpu', 'bundle')
        ) THEN
            wrong := 'known are num_cpus, num_gpus and memory, and custom ones named [A-Za-z_][A-Za-z0-9_.:-]{0,49}';
            EXIT;
        END IF;
        amount := CASE item.kind WHEN 'number' THEN item.said::numeric END;
        wrong := CASE
            WHEN amount IS NULL OR amount < 0 OR amount > 100000 THEN 'it must be a number from 0 to 100000'
            WHEN amount <> round(amount, 4) THEN 'it must be a multiple of 0.0001'
            WHEN item.key IN ('num_gpus', 'numGpus') AND amount > 1 AND amount <> trunc(amount)
                THEN 'above 1 it must be a whole number'
        END;
        EXIT WHEN wrong IS NOT NULL;
        number := trim_scale(amount)::text;
        CASE
            WHEN item.key IN ('num_cpus', 'numCpus') THEN cpus := CASE WHEN amount > 0 THEN 'cpu' || number ELSE '' END;
            WHEN item.key IN ('num_gpus', 'numGpus') THEN gpus := CASE WHEN amount > 0 THEN 'gpu' || number ELSE '' END;
            WHEN amount > 0 THEN custom := custom || (item.key || '=' || number);
            ELSE NULL;
        END CASE;
    END LOOP;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'asyncproc.enqueue: resources: % is %: %', left(item.key, 100), left(item.said, 100), wrong
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT array_to_string(array_remove(ARRAY[cpus, gpus, memory], ''), '-')
        || coalesce(string_agg(',' || c.pair, '' ORDER BY split_part(c.pair, '=', 1) COLLATE "C"), '')
    INTO shape FROM unnest(custom) c (pair);
    IF cardinality(custom) > 8 OR length(shape) > 300 THEN
        RAISE EXCEPTION 'asyncproc.enqueue: resources: at most 8 custom ones are allowed, and names of 300 characters'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN shape;
END $$;

-- What keeps a task from waiting for these, null where nothing does. Each is looked up by itself: whatever the planner
-- of the caller's session believes, that is a probe.
CREATE FUNCTION asyncproc.wrong_parents(ids uuid[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parent uuid;
    digits text;
    made_at timestamptz;
BEGIN
    IF coalesce(cardinality(ids), 0) = 0 THEN
        RETURN NULL;
    END IF;
    IF cardinality(ids) > 10000 THEN
        RETURN format('depends_on has %s ids: at most 10000 are allowed', cardinality(ids));
    END IF;
    FOREACH parent IN ARRAY ids LOOP
        IF parent IS NULL THEN
            RETURN 'depends_on has a null: it must be ids of tasks';
        END IF;
        -- It has not ended before it was made, by a clock that may be a day ahead.
        digits := translate(parent::text, '-', '');
        made_at := CASE substr(digits, 13, 1)
            WHEN '7' THEN to_timestamp(('x' || substr(digits, 1, 12))::bit(48)::bigint / 1000.0) - interval '1 day'
            ELSE '-infinity'
        END;
        IF NOT EXISTS (
            SELECT FROM asyncproc.task_request r WHERE r.id = parent
            UNION ALL SELECT FROM asyncproc.task_live t WHERE t.id = parent
            UNION ALL SELECT FROM asyncproc.task_done d WHERE d.id = parent AND d.finished_at >= made_at
        ) THEN
            RETURN format('depends_on: there is no task %s', parent);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- A function with more parameters is another one, and beside the old one neither would be found by its name: the old
-- one goes, and who was granted it is granted the new one. Where something depends on it (a view, a default) it stays
-- under another name, and leads to the new one.
ALTER FUNCTION asyncproc.enqueue RENAME TO enqueue_before_19;
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
    created_by text DEFAULT NULL,
    affinity_key text DEFAULT NULL,
    resources jsonb DEFAULT NULL,
    depends_on uuid[] DEFAULT NULL,
    on_parent_failure text DEFAULT NULL
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
        WHEN coalesce(on_parent_failure NOT IN ('fail', 'skip', 'run'), false)
            THEN format('on_parent_failure is %L: it must be fail, skip or run', left(on_parent_failure, 100))
        WHEN on_parent_failure IS NOT NULL AND coalesce(cardinality(depends_on), 0) = 0
            THEN 'on_parent_failure is for tasks with depends_on'
        ELSE asyncproc.wrong_parents(depends_on)
    END);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'asyncproc.enqueue: %', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;

    new_id := asyncproc.new_task_id();
    INSERT INTO asyncproc.task_request (
        id, type, queue, priority, ready_at, start_by, deadline, timeout_s, soft_timeout_s, backoff_s, concurrency_key,
        fairness_key, created_by, size, payload, affinity_key, resources, depends_on, on_parent_failure
    ) VALUES (
        new_id, task_type, queue, priority, CASE WHEN ready_at > asked_at THEN ready_at END, start_by, deadline,
        asyncproc.check_seconds('timeout', timeout, year), asyncproc.check_seconds('soft_timeout', soft_timeout, year),
        asyncproc.check_seconds('back_off', back_off, 86400), asyncproc.check_text('concurrency_key', concurrency_key, 200),
        asyncproc.check_text('fairness_key', fairness_key, 200), asyncproc.check_text('created_by', created_by, 200),
        -- So much of what one commit may carry is taken by each of its edges.
        size + 800 * coalesce(cardinality(depends_on), 0), body,
        asyncproc.check_text('affinity_key', affinity_key, 200), asyncproc.shape_text(resources),
        nullif(depends_on, '{}'), on_parent_failure
    );
    IF coalesce(current_setting('asyncproc.notify', true), '') IN ('', 'on', 'true', '1') THEN
        PERFORM pg_notify('asyncproc_enqueue', '');
    END IF;
    RETURN new_id;
END $$;
REVOKE ALL ON FUNCTION asyncproc.enqueue FROM PUBLIC;

DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT a.grantee, a.is_grantable FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a
        WHERE p.oid = 'asyncproc.enqueue_before_19'::regproc AND a.grantee <> p.proowner
    LOOP
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION asyncproc.enqueue TO %s%s',
            CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END,
            CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        );
    END LOOP;
END $$;

DO $$
BEGIN
    DROP FUNCTION asyncproc.enqueue_before_19;
EXCEPTION WHEN dependent_objects_still_exist THEN
    CREATE OR REPLACE FUNCTION asyncproc.enqueue_before_19(
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
    ) RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $old$
    BEGIN
        RETURN asyncproc.enqueue(
            task_type, payload, queue, priority, delay, run_at, start_by, deadline, timeout, soft_timeout, back_off,
            concurrency_key, fairness_key, created_by
        );
    END $old$;
END $$;
