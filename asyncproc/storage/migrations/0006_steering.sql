-- What operators set at run time. Nothing that is there is rewritten, and the release before works beside it.
-- Every change counts the version on, in the same transaction: whoever holds a copy sees that it is old.
CREATE TABLE asyncproc.steering (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
);
INSERT INTO asyncproc.steering (version) VALUES (0);

-- Settings of a queue, a task type or a rate limit: only what was said, by the keys that REST and the configuration use.
CREATE TABLE asyncproc.stored_settings (
    kind text NOT NULL CHECK (kind IN ('queue', 'type', 'rate')),
    name text COLLATE "C" NOT NULL,
    settings jsonb NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE asyncproc.pause (
    scope text NOT NULL CHECK (scope IN ('all', 'queue', 'type')),
    name text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz,
    reason text NOT NULL,
    paused_by text NOT NULL,
    PRIMARY KEY (scope, name)
);

-- Queues that take no new tasks.
CREATE TABLE asyncproc.draining (
    queue text COLLATE "C" PRIMARY KEY,
    since timestamptz NOT NULL
);

-- Purges under way: all that waited in the queue at that instant is to be cancelled, whoever reigns.
CREATE TABLE asyncproc.purge (
    queue text COLLATE "C" PRIMARY KEY,
    asked_at timestamptz NOT NULL,
    cancelled bigint NOT NULL DEFAULT 0
);

-- What is not ready, by queue: to count and to purge it. Ready rows are not in it, and a claim does not touch it.
CREATE INDEX task_live_not_ready ON asyncproc.task_live (queue, ready_at, id) WHERE rank IS NULL;

-- Who said each of the values that a task may leave to others: task, stored settings, configuration or code.
ALTER TABLE asyncproc.task_live ADD COLUMN origins text NOT NULL DEFAULT '';
ALTER TABLE asyncproc.task_done ADD COLUMN origins text NOT NULL DEFAULT '';
