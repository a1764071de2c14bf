-- Keys by which tasks of a queue share a limit or take turns, and the instants that one task is bound to. With constant
-- defaults, so that no row is rewritten and the release before goes on writing rows without them.
ALTER TABLE asyncproc.task_live
    ADD COLUMN concurrency_key text NOT NULL DEFAULT '',
    ADD COLUMN fairness_key text NOT NULL DEFAULT '',
    ADD COLUMN start_by timestamptz,
    ADD COLUMN deadline timestamptz,
    ADD COLUMN unique_key text;
ALTER TABLE asyncproc.task_done
    ADD COLUMN concurrency_key text NOT NULL DEFAULT '',
    ADD COLUMN fairness_key text NOT NULL DEFAULT '',
    ADD COLUMN start_by timestamptz,
    ADD COLUMN deadline timestamptz,
    ADD COLUMN unique_key text;
