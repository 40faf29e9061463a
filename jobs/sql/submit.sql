-- One statement stores a batch of tasks of a job, each in `waiting` or, not due yet, `deferred`, or,
-- while it depends on others, `blocked`.
-- A column in which all tasks are alike comes as an empty array and one value; ids come only where
-- edges need them.
WITH submitted AS (
    INSERT INTO tasks (
        id, job_id, queue, created_at, updated_at, name, kind, payload, priority, requires,
        run_after, timeout_seconds, max_retries, retry, deadline_seconds, deadline_at, lane_id,
        score, status, generation, attempt, fencing_token, retry_count, loss_count, result_text,
        key, dependency_count, has_dependents,
        concurrency_key, slots
    )
    SELECT
        coalesce(task.id, nextval('tasks_id_seq')),
        %(job_id)s, %(queue)s, %(created_at)s, %(created_at)s, coalesce(name, %(all_name)s),
        coalesce(kind, %(all_kind)s), payload::jsonb, coalesce(priority, %(all_priority)s::smallint),
        lanes.requires, coalesce(run_after, %(all_run_after)s::timestamptz),
        coalesce(timeout_seconds, %(all_timeout_seconds)s::float8),
        coalesce(max_retries, %(all_max_retries)s::smallint),
        coalesce(retry, %(all_retry)s::text)::jsonb,
        coalesce(deadline_seconds, %(all_deadline_seconds)s::float8),
        greatest(%(created_at)s, coalesce(run_after, %(all_run_after)s::timestamptz))
            + make_interval(secs => coalesce(deadline_seconds, %(all_deadline_seconds)s::float8)),
        lanes.id, score,
        'pending', 1, 0, 0, 0, 0, '', coalesce(key, %(all_key)s),
        coalesce(dependency_count, %(all_dependency_count)s::int),
        coalesce(has_dependents, %(all_has_dependents)s::bool),
        coalesce(concurrency_key, %(all_concurrency_key)s), lanes.slots
    FROM unnest(
        %(payload)b::text[], %(score)b::bigint[], %(lane_id)b::bigint[], %(name)b::text[],
        %(kind)b::text[], %(priority)b::smallint[], %(run_after)b::timestamptz[],
        %(timeout_seconds)b::float8[], %(max_retries)b::smallint[], %(retry)b::text[],
        %(deadline_seconds)b::float8[], %(key)b::text[],
        %(id)b::bigint[], %(dependency_count)b::int[], %(has_dependents)b::bool[],
        %(concurrency_key)b::text[]
    ) WITH ORDINALITY AS task (
        payload, score, lane_id, name, kind, priority, run_after, timeout_seconds, max_retries,
        retry, deadline_seconds, key, id, dependency_count, has_dependents, concurrency_key, n
    )
    JOIN lanes ON lanes.id = coalesce(lane_id, %(all_lane_id)s::bigint)
    ORDER BY n
    RETURNING id, lane_id, score, job_id, run_after, dependency_count
), blocked AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id, unmet)
    SELECT id, lane_id, 'dependencies', '', score, job_id, dependency_count
    FROM submitted WHERE dependency_count > 0
), deferred AS (
    INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT id, lane_id, run_after, score, job_id FROM submitted
    WHERE dependency_count = 0 AND run_after > %(created_at)s
)
INSERT INTO waiting (task_id, lane_id, score, job_id)
SELECT id, lane_id, score, job_id FROM submitted
WHERE dependency_count = 0 AND (run_after IS NULL OR run_after <= %(created_at)s)
