-- One statement stores a batch of tasks of a job, each in `waiting` or, not due yet, `deferred`.
-- A column in which all tasks are alike comes as an empty array and one value.
WITH submitted AS (
    INSERT INTO tasks (
        job_id, queue, created_at, updated_at, name, kind, payload, priority, requires, run_after,
        timeout_seconds, max_retries, lane_id, score, status, generation, attempt, fencing_token,
        retry_count, loss_count, result_text
    )
    SELECT
        %(job_id)s, %(queue)s, %(created_at)s, %(created_at)s, coalesce(name, %(all_name)s),
        coalesce(kind, %(all_kind)s), payload::jsonb, coalesce(priority, %(all_priority)s::smallint),
        lanes.requires, coalesce(run_after, %(all_run_after)s::timestamptz),
        coalesce(timeout_seconds, %(all_timeout_seconds)s::float8),
        coalesce(max_retries, %(all_max_retries)s::smallint), lanes.id, score,
        'pending', 1, 0, 0, 0, 0, ''
    FROM unnest(
        %(payload)b::text[], %(score)b::bigint[], %(lane_id)b::bigint[], %(name)b::text[],
        %(kind)b::text[], %(priority)b::smallint[], %(run_after)b::timestamptz[],
        %(timeout_seconds)b::float8[], %(max_retries)b::smallint[]
    ) WITH ORDINALITY AS task (
        payload, score, lane_id, name, kind, priority, run_after, timeout_seconds, max_retries, n
    )
    JOIN lanes ON lanes.id = coalesce(lane_id, %(all_lane_id)s::bigint)
    ORDER BY n
    RETURNING id, lane_id, score, job_id, run_after
), deferred AS (
    INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT id, lane_id, run_after, score, job_id FROM submitted WHERE run_after > %(created_at)s
)
INSERT INTO waiting (task_id, lane_id, score, job_id)
SELECT id, lane_id, score, job_id FROM submitted
WHERE run_after IS NULL OR run_after <= %(created_at)s
