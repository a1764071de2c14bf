-- Seconds; 0 is no limit. With a default, so that the release before goes on writing rows without them, and constant, so
-- that no row is rewritten.
ALTER TABLE asyncproc.task_live
    ADD COLUMN timeout_s double precision NOT NULL DEFAULT 0,
    ADD COLUMN soft_timeout_s double precision NOT NULL DEFAULT 0;
ALTER TABLE asyncproc.task_done
    ADD COLUMN timeout_s double precision NOT NULL DEFAULT 0,
    ADD COLUMN soft_timeout_s double precision NOT NULL DEFAULT 0;
