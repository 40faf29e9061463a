-- blocked -> waiting: what the pause of a job held, each with the score it had. `updated_at` says
-- since when it waits for its turn.
WITH picked AS MATERIALIZED (
    SELECT task_id FROM blocked WHERE reason = 'paused' AND key = %(job_id)s::text
    ORDER BY task_id FOR UPDATE
), gone AS (
    DELETE FROM blocked WHERE task_id = ANY (ARRAY(SELECT task_id FROM picked))
    RETURNING task_id, lane_id, score, job_id
), back AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT task_id, lane_id, score, job_id FROM gone
    RETURNING task_id
)
UPDATE tasks SET updated_at = statement_timestamp()
WHERE id = ANY (ARRAY(SELECT task_id FROM back))
