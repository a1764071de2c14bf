-- Pools have stored settings too. The code knows the kinds, and every release passes over those that it does not know.
ALTER TABLE asyncproc.stored_settings DROP CONSTRAINT stored_settings_kind_check;

-- What a task asks of its worker, as one short text (`gpu0.5-mem2GiB`). With a constant default, so that no row is
-- rewritten and the release before goes on writing rows without it.
ALTER TABLE asyncproc.task_live ADD COLUMN resources text NOT NULL DEFAULT '';
ALTER TABLE asyncproc.task_done ADD COLUMN resources text NOT NULL DEFAULT '';
-- It is a part of a lane's identity: tasks that no worker can take never stand before those that one can.
-- Built while no row is written: about two seconds a million rows that wait.
CREATE INDEX task_live_lanes ON asyncproc.task_live
    (queue, type, fairness_key, concurrency_key, resources, rank, id) WHERE rank IS NOT NULL;
DROP INDEX asyncproc.task_live_ready;
ALTER INDEX asyncproc.task_live_lanes RENAME TO task_live_ready;
