-- failed, cancelled -> pending: a person's second chance opens a new generation, with fresh
-- retries; what happened before stays in the attempts.
WITH again AS (
    UPDATE tasks SET
        status = 'pending', generation = generation + 1, retry_count = 0, loss_count = 0,
        cancel_requested_at = NULL, completed_at = NULL, assigned_worker_id = NULL,
        exit_code = NULL, result_text = '', updated_at = now()
    WHERE id IN (
        SELECT id FROM tasks WHERE id = ANY (%(ids)s) AND final_status IN ('failed', 'cancelled')
        ORDER BY id FOR UPDATE
    )
    RETURNING id, lane_id, score, job_id
), waiting AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT id, lane_id, score, job_id FROM again
), reopened AS (
    UPDATE jobs SET finished_at = NULL, cancelled_at = NULL
    WHERE id IN (SELECT job_id FROM again)
)
SELECT id FROM again
