-- Who holds a unique key. No row has one yet, and those without have no part in these indexes: they are built while no
-- row is written, in the time that reading all of them takes. A claim touches neither column.

SET LOCAL lock_timeout = '5s';

CREATE INDEX task_live_unique ON asyncproc.task_live (unique_key, type) WHERE unique_key IS NOT NULL;
CREATE INDEX task_done_unique ON asyncproc.task_done (unique_key, type) WHERE unique_key IS NOT NULL;
