-- The limit that holds for a concurrency key now: how many of the key are queued or run, and when the
-- rate lets the next go.
WITH held AS MATERIALIZED (
    SELECT task_id FROM permits WHERE key = %(key)s
)
SELECT limit_.key, max_running,
    (SELECT count(*) FROM ready WHERE task_id = ANY (ARRAY(SELECT task_id FROM held)))
        + (SELECT count(*) FROM leases WHERE task_id = ANY (ARRAY(SELECT task_id FROM held))),
    filled_at + make_interval(secs => (1 - tokens) * rate_seconds / rate_count),
    filled_at + make_interval(secs => (1 - tokens) * rate_seconds / rate_count)
        > statement_timestamp()
FROM limit_of(%(key)s) limit_ LEFT JOIN buckets ON buckets.key = %(key)s
