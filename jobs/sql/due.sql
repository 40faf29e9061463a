-- Tasks whose time has come may be promoted; those of a paused job are put aside. Their status stays
-- pending. What a pause or resume is about to decide is left for the next time.
WITH picked AS MATERIALIZED (
    SELECT due.task_id, job.paused FROM (
        SELECT task_id, job_id FROM deferred WHERE due_at <= statement_timestamp()
        ORDER BY due_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    ) due
    CROSS JOIN LATERAL (
        SELECT paused_at IS NOT NULL AS paused FROM jobs WHERE jobs.id = due.job_id
        FOR KEY SHARE SKIP LOCKED
    ) job
), moved AS (
    DELETE FROM deferred WHERE task_id = ANY (ARRAY(SELECT task_id FROM picked))
    RETURNING task_id, lane_id, score, job_id
), put_aside AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT task_id, lane_id, 'paused', job_id::text, score, job_id FROM moved
    WHERE task_id = ANY (ARRAY(SELECT task_id FROM picked WHERE paused))
)
INSERT INTO waiting (task_id, lane_id, score, job_id)
SELECT task_id, lane_id, score, job_id FROM moved
WHERE task_id <> ALL (ARRAY(SELECT task_id FROM picked WHERE paused))
