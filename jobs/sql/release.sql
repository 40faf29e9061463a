-- Tells the dependents of tasks that have ended (ended_parents): edges are met, and what waits for
-- nothing more may start; what waited for a bad end is cancelled, and its own dependents are told
-- by the next such statement. Follows up to `limit` edges. Waits for nobody: dependents that others
-- have locked, or whose job is being paused, are told the next time.
-- The caller holds an advisory lock; else two statements could count an edge twice.
-- Answers how many rows it moved, the lowest score among those let go to `waiting`, and whether it
-- knows of more to tell: by those it cancelled, of those it left, or beyond its limit.
WITH ended AS MATERIALIZED (
    -- A task that was retried since, or is gone, has nothing to tell: final_status is NULL.
    SELECT first.id, first.task_id, (
        SELECT final_status FROM tasks WHERE tasks.id = first.task_id
    ) AS final_status
    FROM (SELECT id, task_id FROM ended_parents ORDER BY id LIMIT %(limit)s) first
), edge AS MATERIALIZED (
    SELECT found.task_id, found.depends_on_id,
        parent.final_status = 'done' OR found.on_failure = 'run' AS met
    FROM (SELECT DISTINCT task_id, final_status FROM ended WHERE final_status IS NOT NULL) parent
    CROSS JOIN LATERAL (
        SELECT task_id, depends_on_id, on_failure FROM dependencies
        WHERE depends_on_id = parent.task_id AND NOT met AND (
            SELECT reason FROM blocked WHERE blocked.task_id = dependencies.task_id
        ) = 'dependencies'
        LIMIT %(limit)s
    ) found
    LIMIT %(limit)s
), child AS MATERIALIZED (
    SELECT task_id, array_agg(depends_on_id) FILTER (WHERE met) AS met,
        min(depends_on_id) FILTER (WHERE NOT met) AS failed
    FROM edge GROUP BY task_id
), told AS MATERIALIZED (
    SELECT child.*, coalesce(cardinality(child.met), 0) AS n, CASE
        WHEN child.failed IS NOT NULL THEN 'cancel'
        WHEN held.unmet > cardinality(child.met) THEN 'wait'
        WHEN job.paused THEN 'hold'
        ELSE 'go'
    END AS fate
    FROM child
    CROSS JOIN LATERAL (
        SELECT unmet, job_id FROM blocked
        WHERE blocked.task_id = child.task_id AND reason = 'dependencies'
        FOR UPDATE SKIP LOCKED
    ) held
    CROSS JOIN LATERAL (
        SELECT paused_at IS NOT NULL AS paused FROM jobs WHERE jobs.id = held.job_id
        FOR KEY SHARE SKIP LOCKED
    ) job
), counted AS MATERIALIZED (
    SELECT task_id, unnest(met) AS depends_on_id FROM told
), met AS (
    UPDATE dependencies SET met = true
    FROM unnest(
        ARRAY(SELECT task_id FROM counted), ARRAY(SELECT depends_on_id FROM counted)
    ) AS done (task_id, depends_on_id)
    WHERE dependencies.task_id = done.task_id
        AND dependencies.depends_on_id = done.depends_on_id
), gone AS (
    DELETE FROM blocked
    WHERE task_id = ANY (ARRAY(SELECT task_id FROM told WHERE fate IN ('cancel', 'go')))
), lowered AS (
    UPDATE blocked SET unmet = unmet - fewer.n
    FROM unnest(
        ARRAY(SELECT task_id FROM told WHERE fate = 'wait'),
        ARRAY(SELECT n FROM told WHERE fate = 'wait')
    ) AS fewer (task_id, n)
    WHERE blocked.task_id = fewer.task_id
), put_aside AS (
    UPDATE blocked SET unmet = 0, reason = 'paused', key = job_id::text
    WHERE task_id = ANY (ARRAY(SELECT task_id FROM told WHERE fate = 'hold'))
), cancelled AS (
    UPDATE tasks SET
        status = 'cancelled', completed_at = statement_timestamp(),
        updated_at = statement_timestamp(),
        result_text = concat('cancelled: task ', fallen.parent_id, ', on which it depends, ', (
            SELECT CASE final_status WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END
            FROM tasks parent WHERE parent.id = fallen.parent_id
        ))
    FROM unnest(
        ARRAY(SELECT task_id FROM told WHERE fate = 'cancel'),
        ARRAY(SELECT failed FROM told WHERE fate = 'cancel')
    ) AS fallen (task_id, parent_id)
    WHERE tasks.id = fallen.task_id
    RETURNING tasks.id, tasks.has_dependents
), tell_theirs AS (
    INSERT INTO ended_parents (task_id) SELECT id FROM cancelled WHERE has_dependents
), free AS (
    UPDATE tasks SET updated_at = statement_timestamp()
    WHERE id = ANY (ARRAY(SELECT task_id FROM told WHERE fate = 'go'))
    RETURNING id, lane_id, score, job_id, run_after
), put_off AS (
    INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT id, lane_id, run_after, score, job_id FROM free WHERE run_after > statement_timestamp()
), let_go AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT id, lane_id, score, job_id FROM free
    WHERE run_after IS NULL OR run_after <= statement_timestamp()
    RETURNING score
), finished AS (
    DELETE FROM ended_parents
    WHERE id = ANY (ARRAY(SELECT id FROM ended))
        AND (SELECT count(*) FROM edge) < %(limit)s
        AND ((SELECT count(*) FROM child) = (SELECT count(*) FROM told) OR task_id <> ALL (ARRAY(
            SELECT depends_on_id FROM edge WHERE task_id <> ALL (ARRAY(SELECT task_id FROM told))
        )))
    RETURNING id
)
SELECT (SELECT count(*) FROM told) + (SELECT count(*) FROM finished),
    (SELECT min(score) FROM let_go),
    EXISTS (SELECT FROM cancelled WHERE has_dependents)
        OR (SELECT count(*) = %(limit)s OR count(*) > (SELECT count(*) FROM finished) FROM ended)
