-- What running tasks note of themselves. Null for all that note nothing: no row is rewritten or grows, and the release
-- before works beside this one. No index knows of them: to note something stays on the page of its row.
-- `noted` tells one note from the next: the lease in the upper half, its number in the lower one. `log` has an entry an
-- attempt: objects with commas between them.
ALTER TABLE asyncproc.task_live
    ADD COLUMN noted bigint, ADD COLUMN progress json, ADD COLUMN log text[], ADD COLUMN checkpoint json;
-- Not compressed, so that its size is known without reading it.
ALTER TABLE asyncproc.task_live ALTER COLUMN checkpoint SET STORAGE EXTERNAL;
ALTER TABLE asyncproc.task_done
    ADD COLUMN noted bigint, ADD COLUMN progress json, ADD COLUMN log text[], ADD COLUMN checkpoint json;

-- The log with the lines of one attempt as they are now; null leaves them as they were. `goes_on` says that the last
-- entry is of that attempt. Of earlier ones the newest stay: twenty with what has noted since, and 64 KiB.
CREATE FUNCTION asyncproc.log_with(log text[], goes_on boolean, lines text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN lines IS NULL AND (log IS NULL OR goes_on) THEN log
        ELSE (
            SELECT array_agg(entry ORDER BY place) FROM (
                SELECT entry, place, row_number() OVER newest AS nth, sum(octet_length(entry)) OVER newest AS bytes
                FROM unnest(
                    CASE WHEN goes_on THEN trim_array(log, 1) ELSE log END || coalesce(lines, '')
                ) WITH ORDINALITY e (entry, place)
                WINDOW newest AS (ORDER BY place DESC)
            ) e WHERE nth = 1 OR nth <= 20 AND bytes <= 65536
        )
    END
$$;
