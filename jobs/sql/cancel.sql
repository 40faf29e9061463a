-- pending, queued -> cancelled at once; for what is running the wish is noted on its
-- lease, if it is wanted.
-- A task that another statement moves meanwhile is missed: the caller repeats until none is.
WITH waiting_ AS MATERIALIZED (
    SELECT task_id FROM waiting WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), ready_ AS MATERIALIZED (
    SELECT task_id FROM ready WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), deferred_ AS MATERIALIZED (
    SELECT task_id FROM deferred WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), blocked_ AS MATERIALIZED (
    SELECT task_id FROM blocked WHERE task_id = ANY (%(ids)s) ORDER BY task_id FOR UPDATE
), leased AS MATERIALIZED (
    SELECT task_id FROM leases WHERE task_id = ANY (%(ids)s) AND %(running)s
    ORDER BY task_id FOR UPDATE
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
), asked AS (
    UPDATE leases SET cancel_requested_at = coalesce(cancel_requested_at, now())
    WHERE task_id = ANY (ARRAY(SELECT task_id FROM leased))
    RETURNING task_id, cancel_requested_at
), at_once AS (
    UPDATE tasks SET status = 'cancelled', completed_at = now(), updated_at = now(),
        cancel_requested_at = now()
    WHERE id IN (
        SELECT task_id FROM gone UNION ALL SELECT task_id FROM gone_ready
        UNION ALL SELECT task_id FROM gone_deferred UNION ALL SELECT task_id FROM gone_blocked
    )
    RETURNING id, has_dependents
), told AS (
    INSERT INTO ended_parents (task_id) SELECT id FROM at_once WHERE has_dependents
), noted AS (
    UPDATE tasks SET cancel_requested_at = asked.cancel_requested_at
    FROM asked WHERE tasks.id = asked.task_id RETURNING tasks.id
)
SELECT id, 'cancelled' FROM at_once UNION ALL SELECT id, 'in_progress' FROM noted
