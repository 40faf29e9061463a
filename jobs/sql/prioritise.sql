-- Another priority, and the score that follows from it, for what has not started. What was queued
-- goes back, queued -> pending, and is promoted anew where it now belongs.
-- A task that another statement moves meanwhile is missed: the caller repeats until none is.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)b::bigint[], %(scores)b::bigint[]) AS wanted (id, score)
), waiting_ AS MATERIALIZED (
    SELECT task_id FROM waiting WHERE task_id = ANY (%(ids)b) ORDER BY task_id FOR UPDATE
), ready_ AS MATERIALIZED (
    SELECT task_id FROM ready WHERE task_id = ANY (%(ids)b) ORDER BY task_id FOR UPDATE
), deferred_ AS MATERIALIZED (
    SELECT task_id FROM deferred WHERE task_id = ANY (%(ids)b) ORDER BY task_id FOR UPDATE
), blocked_ AS MATERIALIZED (
    SELECT task_id FROM blocked WHERE task_id = ANY (%(ids)b) ORDER BY task_id FOR UPDATE
), waits AS (
    UPDATE waiting SET score = wanted.score FROM wanted
    WHERE waiting.task_id = wanted.id AND task_id = ANY (ARRAY(SELECT task_id FROM waiting_))
    RETURNING task_id
), is_put_off AS (
    UPDATE deferred SET score = wanted.score FROM wanted
    WHERE deferred.task_id = wanted.id AND task_id = ANY (ARRAY(SELECT task_id FROM deferred_))
    RETURNING task_id
), is_blocked AS (
    UPDATE blocked SET score = wanted.score FROM wanted
    WHERE blocked.task_id = wanted.id AND task_id = ANY (ARRAY(SELECT task_id FROM blocked_))
    RETURNING task_id
), gone AS (
    DELETE FROM ready WHERE task_id = ANY (ARRAY(SELECT task_id FROM ready_))
    RETURNING task_id, lane_id, job_id
), back AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT task_id, lane_id, wanted.score, job_id FROM gone JOIN wanted ON wanted.id = task_id
    RETURNING task_id
)
UPDATE tasks SET
    priority = %(priority)s::smallint, score = wanted.score, status = 'pending',
    updated_at = now()
FROM wanted
WHERE tasks.id = wanted.id AND tasks.id = ANY (ARRAY(
    SELECT task_id FROM waits UNION ALL SELECT task_id FROM is_put_off
    UNION ALL SELECT task_id FROM is_blocked UNION ALL SELECT task_id FROM back
))
RETURNING tasks.id
