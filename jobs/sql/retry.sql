-- failed, cancelled -> pending: a person's second chance opens a new generation, with fresh retries
-- and a new deadline; what happened before stays in the attempts. With a task come back those that
-- its end cancelled (by release.sql: no cancel was asked for); but none whose parent failed and does
-- not. Each waits for all its dependencies anew: those that ended already are told again.
-- Of a paused job it is put aside; of a job that lost its unique key nothing comes back. The jobs are
-- locked first: that orders retries of the same tasks, and these before or after a pause. The caller
-- holds up release.sql.
WITH RECURSIVE fallen AS MATERIALIZED (
    SELECT id, job_id, dependency_count, has_dependents FROM tasks
    WHERE id = ANY (%(ids)s) AND final_status IN ('failed', 'cancelled')
), named AS MATERIALIZED (
    SELECT id, job_id, has_dependents FROM fallen
    WHERE dependency_count = 0 OR NOT EXISTS (
        SELECT FROM dependencies JOIN tasks parent ON parent.id = depends_on_id
        WHERE dependencies.task_id = fallen.id AND on_failure = 'cancel'
            AND parent.final_status IN ('failed', 'cancelled')
            AND parent.id NOT IN (SELECT id FROM fallen)
    )
), family (id, job_id, has_dependents) AS (
    SELECT id, job_id, has_dependents FROM named
    UNION
    SELECT child.id, child.job_id, child.has_dependents
    FROM family
    CROSS JOIN LATERAL (
        SELECT task_id FROM dependencies
        WHERE depends_on_id = family.id AND on_failure = 'cancel' OFFSET 0
    ) edge
    CROSS JOIN LATERAL (
        SELECT id, job_id, has_dependents FROM tasks WHERE tasks.id = edge.task_id
            AND final_status = 'cancelled' AND cancel_requested_at IS NULL OFFSET 0
    ) child
    WHERE family.has_dependents
), held AS MATERIALIZED (
    SELECT job_id FROM unique_keys WHERE job_id = ANY (ARRAY(SELECT job_id FROM family))
    ORDER BY scope, key FOR SHARE
), job AS MATERIALIZED (
    SELECT id, paused_at FROM jobs WHERE id = ANY (ARRAY(SELECT job_id FROM family))
        AND ("unique" IS NULL OR id = ANY (ARRAY(SELECT job_id FROM held)))
    ORDER BY id FOR NO KEY UPDATE
), again AS (
    UPDATE tasks SET
        status = 'pending', generation = generation + 1, retry_count = 0, loss_count = 0,
        cancel_requested_at = NULL, completed_at = NULL, assigned_worker_id = NULL,
        avoided_worker_id = NULL, exit_code = NULL, result_text = '', updated_at = now(),
        deadline_at = greatest(now(), run_after) + make_interval(secs => deadline_seconds)
    WHERE id = ANY (ARRAY(SELECT id FROM family)) AND final_status IN ('failed', 'cancelled')
        AND job_id = ANY (ARRAY(SELECT id FROM job))
    RETURNING id, lane_id, score, job_id, CASE WHEN dependency_count > 0 THEN (
        SELECT count(*) FROM dependencies WHERE task_id = tasks.id
    ) ELSE 0 END AS unmet
), anew AS (
    UPDATE dependencies SET met = false
    WHERE task_id = ANY (ARRAY(SELECT id FROM again WHERE unmet > 0)) AND met
), told AS (
    INSERT INTO ended_parents (task_id)
    SELECT DISTINCT parent_id FROM (
        SELECT unnest(ARRAY(
            SELECT depends_on_id FROM dependencies WHERE task_id = again.id
        )) AS parent_id FROM again WHERE unmet > 0
    ) awaited
    WHERE (SELECT final_status FROM tasks WHERE tasks.id = parent_id) IS NOT NULL
        AND parent_id NOT IN (SELECT id FROM family)
), waits AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id, unmet)
    SELECT id, lane_id, 'dependencies', '', score, job_id, unmet FROM again WHERE unmet > 0
), back AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT id, lane_id, score, job_id FROM again
    WHERE unmet = 0 AND job_id <> ALL (ARRAY(SELECT id FROM job WHERE paused_at IS NOT NULL))
), put_aside AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT id, lane_id, 'paused', job_id::text, score, job_id FROM again
    WHERE unmet = 0 AND job_id = ANY (ARRAY(SELECT id FROM job WHERE paused_at IS NOT NULL))
), reopened AS (
    UPDATE jobs SET finished_at = NULL, cancelled_at = NULL
    WHERE id IN (SELECT job_id FROM again)
)
SELECT id FROM again
