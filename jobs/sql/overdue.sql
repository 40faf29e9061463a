-- pending, queued -> failed: what waits although its deadline has passed. What others have locked or
-- move meanwhile is left for the next time. Answers which, and whether dependents are to be told.
WITH late AS MATERIALIZED (
    SELECT id FROM tasks
    WHERE completed_at IS NULL AND deadline_at <= statement_timestamp() AND status <> 'in_progress'
    ORDER BY deadline_at LIMIT %(batch)s
), waiting_ AS MATERIALIZED (
    SELECT task_id FROM waiting WHERE task_id = ANY (ARRAY(SELECT id FROM late))
    FOR UPDATE SKIP LOCKED
), ready_ AS MATERIALIZED (
    SELECT task_id FROM ready WHERE task_id = ANY (ARRAY(SELECT id FROM late))
    FOR UPDATE SKIP LOCKED
), deferred_ AS MATERIALIZED (
    SELECT task_id FROM deferred WHERE task_id = ANY (ARRAY(SELECT id FROM late))
    FOR UPDATE SKIP LOCKED
), blocked_ AS MATERIALIZED (
    SELECT task_id FROM blocked WHERE task_id = ANY (ARRAY(SELECT id FROM late))
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM waiting WHERE task_id = ANY (ARRAY(SELECT task_id FROM waiting_))
    RETURNING task_id
), gone_ready AS (
    DELETE FROM ready WHERE task_id = ANY (ARRAY(SELECT task_id FROM ready_))
    RETURNING task_id
), gone_deferred AS (
    DELETE FROM deferred WHERE task_id = ANY (ARRAY(SELECT task_id FROM deferred_))
    RETURNING task_id
), gone_blocked AS (
    DELETE FROM blocked WHERE task_id = ANY (ARRAY(SELECT task_id FROM blocked_))
    RETURNING task_id
), failed AS (
    UPDATE tasks SET
        status = 'failed', completed_at = statement_timestamp(),
        updated_at = statement_timestamp(),
        result_text = concat_ws(E'\n', 'deadline passed', nullif(result_text, ''))
    WHERE id = ANY (ARRAY(
        SELECT task_id FROM gone UNION ALL SELECT task_id FROM gone_ready
        UNION ALL SELECT task_id FROM gone_deferred UNION ALL SELECT task_id FROM gone_blocked
    ))
    RETURNING id, has_dependents
), told AS (
    INSERT INTO ended_parents (task_id) SELECT id FROM failed WHERE has_dependents
)
SELECT id, has_dependents FROM failed
