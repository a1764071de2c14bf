-- A running task that was asked to end: whoever reigns next must not forget it.
ALTER TABLE asyncproc.task_live ADD COLUMN cancel_requested_at timestamptz, ADD COLUMN cancel_reason text;
