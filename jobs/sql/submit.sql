-- One statement stores a batch of tasks of a job, each in `waiting` or, not due yet, `deferred`.
WITH submitted AS (
    INSERT INTO tasks (
        job_id, queue, created_at, updated_at, name, kind, payload, priority, requires, run_after,
        timeout_seconds, max_retries, lane_id, score, status, generation, attempt, fencing_token,
        retry_count, loss_count, result_text
    )
    SELECT
        %(job_id)s, %(queue)s, %(created_at)s, %(created_at)s, name, kind, payload, priority,
        lanes.requires, run_after, timeout_seconds, max_retries, lane_id, score,
        'pending', 1, 0, 0, 0, 0, ''
    FROM unnest(
        %(name)s::text[], %(kind)s::text[], %(payload)s::jsonb[], %(priority)s::smallint[],
        %(run_after)s::timestamptz[], %(timeout_seconds)s::float8[], %(max_retries)s::smallint[],
        %(lane_id)s::bigint[], %(score)s::bigint[]
    ) WITH ORDINALITY AS task (
        name, kind, payload, priority, run_after, timeout_seconds, max_retries, lane_id, score, n
    )
    JOIN lanes ON lanes.id = lane_id
    ORDER BY n
    RETURNING id, lane_id, score, job_id, run_after
), deferred AS (
    INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT id, lane_id, run_after, score, job_id FROM submitted WHERE run_after > %(created_at)s
), waiting AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT id, lane_id, score, job_id FROM submitted
    WHERE run_after IS NULL OR run_after <= %(created_at)s
)
SELECT id FROM submitted ORDER BY id
