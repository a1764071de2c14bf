-- Tasks that are over by an instant of theirs: there are few, and all others have no part in these indexes.
CREATE INDEX task_live_start_by ON asyncproc.task_live (start_by) WHERE start_by IS NOT NULL;
CREATE INDEX task_live_deadline ON asyncproc.task_live (deadline) WHERE deadline IS NOT NULL;
