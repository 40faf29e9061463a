-- waiting, queued -> blocked: of a job that is being paused, what could be promoted or claimed; and
-- what a limit holds, which now waits for another reason.
-- What another statement moves meanwhile is missed. So this answers how many such tasks it saw as it
-- began, and the caller repeats it until there were none.
WITH live AS MATERIALIZED (
    SELECT id FROM tasks WHERE job_id = %(job_id)s AND final_status IS NULL
), waiting_ AS MATERIALIZED (
    SELECT task_id FROM waiting WHERE task_id = ANY (ARRAY(SELECT id FROM live))
    ORDER BY task_id FOR UPDATE
), ready_ AS MATERIALIZED (
    SELECT task_id FROM ready WHERE task_id = ANY (ARRAY(SELECT id FROM live))
    ORDER BY task_id FOR UPDATE
), lined AS MATERIALIZED (
    SELECT task_id FROM blocked WHERE task_id = ANY (ARRAY(SELECT id FROM live))
        AND reason = 'limit'
    ORDER BY task_id FOR UPDATE
), gone AS (
    DELETE FROM waiting WHERE task_id = ANY (ARRAY(SELECT task_id FROM waiting_))
    RETURNING task_id, lane_id, score, job_id
), gone_ready AS (
    DELETE FROM ready WHERE task_id = ANY (ARRAY(SELECT task_id FROM ready_))
    RETURNING task_id, lane_id, score, job_id
), put_aside AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT task_id, lane_id, 'paused', job_id::text, score, job_id FROM (
        SELECT * FROM gone UNION ALL SELECT * FROM gone_ready) found
), set_aside AS (
    UPDATE blocked SET reason = 'paused', key = job_id::text
    WHERE task_id = ANY (ARRAY(SELECT task_id FROM lined))
), back AS (
    UPDATE tasks SET status = 'pending', updated_at = statement_timestamp()
    WHERE id = ANY (ARRAY(SELECT task_id FROM gone_ready))
)
SELECT
    (SELECT count(*) FROM waiting WHERE task_id = ANY (ARRAY(SELECT id FROM live)))
    + (SELECT count(*) FROM ready WHERE task_id = ANY (ARRAY(SELECT id FROM live)))
    + (SELECT count(*) FROM lined)
