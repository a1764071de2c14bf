-- How many tasks wait with a concurrency key, and which of them are the oldest: only for queues that bound it. No column
-- of it changes with a claim. It is built while no row is written: about a second a million rows that have a key.
CREATE INDEX task_live_keys ON asyncproc.task_live (queue, concurrency_key, id) WHERE concurrency_key <> '';
