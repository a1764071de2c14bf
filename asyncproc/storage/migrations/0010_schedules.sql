-- Schedules. Nothing that is there is touched; the release before goes on beside it and makes no ticks.

-- What was said at run time, by the keys that REST and the configuration use; of one that the configuration has, only
-- what differs. `version` counts on with each change.
CREATE TABLE asyncproc.schedule (
    name text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    settings json NOT NULL,
    pause json
);

-- How far each schedule is: all its ticks up to `position` are decided. Written in the commit of the ticks themselves.
CREATE TABLE asyncproc.schedule_position (
    name text COLLATE "C" PRIMARY KEY,
    stamp text NOT NULL,
    position timestamptz NOT NULL,
    last_task uuid
) WITH (fillfactor = 50);

-- What became of each tick; the id is that of its task, or the one it would have had.
CREATE TABLE asyncproc.tick (
    task_id uuid PRIMARY KEY,
    schedule text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    decided_at timestamptz NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL
);
CREATE INDEX tick_schedule ON asyncproc.tick (schedule, decided_at, task_id);
CREATE INDEX tick_decided_at ON asyncproc.tick (decided_at);
CREATE INDEX tick_waiting ON asyncproc.tick (schedule, due_at, task_id) WHERE outcome = 'waiting';
