-- failed, cancelled -> pending: a person's second chance opens a new generation, with fresh
-- retries; what happened before stays in the attempts. Of a paused job it is put aside.
-- The jobs are locked first: that orders retries of the same tasks, and these before or after a
-- pause.
WITH named AS MATERIALIZED (
    SELECT id, job_id FROM tasks WHERE id = ANY (%(ids)s) AND final_status IN ('failed', 'cancelled')
), job AS MATERIALIZED (
    SELECT id, paused_at FROM jobs WHERE id = ANY (ARRAY(SELECT job_id FROM named))
    ORDER BY id FOR NO KEY UPDATE
), again AS (
    UPDATE tasks SET
        status = 'pending', generation = generation + 1, retry_count = 0, loss_count = 0,
        cancel_requested_at = NULL, completed_at = NULL, assigned_worker_id = NULL,
        exit_code = NULL, result_text = '', updated_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM named)) AND final_status IN ('failed', 'cancelled')
        AND job_id = ANY (ARRAY(SELECT id FROM job))
    RETURNING id, lane_id, score, job_id
), waiting AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT id, lane_id, score, job_id FROM again
    WHERE job_id <> ALL (ARRAY(SELECT id FROM job WHERE paused_at IS NOT NULL))
), put_aside AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT id, lane_id, 'paused', job_id::text, score, job_id FROM again
    WHERE job_id = ANY (ARRAY(SELECT id FROM job WHERE paused_at IS NOT NULL))
), reopened AS (
    UPDATE jobs SET finished_at = NULL, cancelled_at = NULL
    WHERE id IN (SELECT job_id FROM again)
)
SELECT id FROM again
