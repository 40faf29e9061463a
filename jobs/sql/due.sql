-- Tasks whose time has come may be promoted. Their status stays pending.
WITH picked AS MATERIALIZED (
    SELECT task_id FROM deferred WHERE due_at <= statement_timestamp()
    ORDER BY due_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), moved AS (
    DELETE FROM deferred WHERE task_id = ANY (ARRAY(SELECT task_id FROM picked)) RETURNING *
)
INSERT INTO waiting (task_id, lane_id, score, job_id)
SELECT task_id, lane_id, score, job_id FROM moved
