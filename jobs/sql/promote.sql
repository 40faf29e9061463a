-- pending -> queued: the most urgent waiting tasks of each lane that has room, in policy order.
-- Each lane is read from its own head by index; only the few picked rows are sorted together.
WITH picked AS MATERIALIZED (
    SELECT head.task_id FROM unnest(%(lanes)s::bigint[], %(rooms)s::int[]) AS lane (id, room)
    CROSS JOIN LATERAL (
        SELECT task_id, score, job_id FROM waiting WHERE waiting.lane_id = lane.id
        ORDER BY score, job_id, task_id LIMIT lane.room FOR UPDATE SKIP LOCKED
    ) head
    ORDER BY head.score, head.job_id, head.task_id LIMIT %(batch)s
), moved AS (
    DELETE FROM waiting USING picked WHERE waiting.task_id = picked.task_id RETURNING waiting.*
), queued AS (
    INSERT INTO ready (task_id, lane_id, seq, score, job_id)
    SELECT task_id, lane_id, nextval('dispatch_sequence'), score, job_id
    FROM (SELECT * FROM moved ORDER BY score, job_id, task_id) ordered
)
UPDATE tasks SET status = 'queued', updated_at = now() FROM moved WHERE tasks.id = moved.task_id
