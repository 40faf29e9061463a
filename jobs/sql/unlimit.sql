-- blocked -> waiting: what stands in the line of a key that has no limit any more.
WITH key_ AS MATERIALIZED (
    SELECT key FROM (SELECT DISTINCT key FROM blocked WHERE reason = 'limit') lined
    WHERE NOT EXISTS (SELECT FROM limit_of(key))
), picked AS MATERIALIZED (
    SELECT task_id FROM blocked WHERE reason = 'limit' AND key = ANY (ARRAY(SELECT key FROM key_))
    ORDER BY task_id FOR UPDATE
), gone AS (
    DELETE FROM blocked WHERE task_id = ANY (ARRAY(SELECT task_id FROM picked))
    RETURNING task_id, lane_id, score, job_id
), back AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT task_id, lane_id, score, job_id FROM gone
    RETURNING task_id
), forgotten AS (
    DELETE FROM permits WHERE NOT EXISTS (SELECT FROM limit_of(permits.key))
), emptied AS (
    DELETE FROM buckets WHERE NOT EXISTS (
        SELECT FROM limit_of(buckets.key) WHERE rate_count IS NOT NULL)
)
UPDATE tasks SET updated_at = statement_timestamp()
WHERE id = ANY (ARRAY(SELECT task_id FROM back))
