-- What failed tasks have in common: their type and their error, with all that differs from one to the next left out.
CREATE FUNCTION asyncproc.fingerprint(type text, error text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(md5(type || E'\n' || regexp_replace(
        coalesce(error, ''),
        '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[[:alnum:]._%+-]+@[[:alnum:].-]+|\m\w*\d\w*\M', '#', 'gi'
    )), 12)
$$;

-- Null for what the release before wrote, and for all that did not fail: no row is rewritten.
ALTER TABLE asyncproc.task_done ADD COLUMN fingerprint text;

-- The id is no key of it: it would seem to be of use to whoever looks for one. Built while no task can fail for good:
-- about a second a million failed ones.
CREATE INDEX task_done_failed_fingerprint ON asyncproc.task_done_failed (fingerprint, finished_at) INCLUDE (id, type, queue);

-- What is being done, or was, to all tasks that match a filter. `reached` is the id up to which it is done; tasks with
-- ids above `upto` came later and are not meant.
CREATE TABLE asyncproc.operation (
    id uuid PRIMARY KEY,
    action text NOT NULL,
    filter text NOT NULL,
    arguments text NOT NULL,
    rate double precision,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'cancelled')),
    reached uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    upto uuid NOT NULL,
    matched bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
