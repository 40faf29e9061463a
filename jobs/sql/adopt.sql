-- A new job depends on these tasks of other jobs: they are marked, so that their end is told. What
-- has ended is told anew. Answers which there are, with the status in which those ended, and which
-- of them were marked; one that another statement moves meanwhile is not: the caller repeats.
WITH waiting_ AS MATERIALIZED (
    SELECT task_id FROM waiting WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), ready_ AS MATERIALIZED (
    SELECT task_id FROM ready WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), deferred_ AS MATERIALIZED (
    SELECT task_id FROM deferred WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), blocked_ AS MATERIALIZED (
    SELECT task_id FROM blocked WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), leased AS MATERIALIZED (
    SELECT task_id FROM leases WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), live AS (
    UPDATE tasks SET has_dependents = true WHERE id = ANY (ARRAY(
        SELECT task_id FROM waiting_ UNION ALL SELECT task_id FROM ready_
        UNION ALL SELECT task_id FROM deferred_ UNION ALL SELECT task_id FROM blocked_
        UNION ALL SELECT task_id FROM leased
    ))
    RETURNING id
), ended AS (
    -- Only a retry writes such a row, and it cannot any more once this has.
    UPDATE tasks SET has_dependents = true WHERE id = ANY (%(ids)s) AND final_status IS NOT NULL
    RETURNING id, final_status
), told AS (
    INSERT INTO ended_parents (task_id) SELECT id FROM ended
)
SELECT id, NULL AS final_status, true AS marked FROM live
UNION ALL SELECT id, final_status, true FROM ended
UNION ALL SELECT id, NULL, false FROM tasks WHERE id = ANY (%(ids)s)
