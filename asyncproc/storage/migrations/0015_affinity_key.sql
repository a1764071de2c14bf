-- The key by which a task goes where the last one of its key ran. With a constant default, so that no row is rewritten and
-- the release before goes on writing rows without it.
ALTER TABLE asyncproc.task_live ADD COLUMN affinity_key text NOT NULL DEFAULT '';
ALTER TABLE asyncproc.task_done ADD COLUMN affinity_key text NOT NULL DEFAULT '';
