-- queued -> pending: puts the windows of these lanes back, so that what became more urgent since
-- is promoted before them.
WITH picked AS MATERIALIZED (
    SELECT task_id FROM ready WHERE lane_id = ANY (%(lanes)s::bigint[])
    ORDER BY task_id FOR UPDATE SKIP LOCKED
), moved AS (
    DELETE FROM ready USING picked WHERE ready.task_id = picked.task_id RETURNING ready.*
), waiting AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT task_id, lane_id, score, job_id FROM moved
)
UPDATE tasks SET status = 'pending', updated_at = now() FROM moved WHERE tasks.id = moved.task_id
