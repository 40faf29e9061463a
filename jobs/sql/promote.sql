-- pending -> queued: the most urgent waiting tasks of each lane that has room, in policy order.
-- Each lane is read from its own head by index; only the few picked rows are sorted together.
WITH picked AS MATERIALIZED (
    SELECT head.* FROM unnest(%(lanes)s::bigint[], %(rooms)s::bigint[]) AS lane (id, room)
    CROSS JOIN LATERAL (
        SELECT ctid, task_id, lane_id, score, job_id FROM waiting WHERE waiting.lane_id = lane.id
        ORDER BY score, job_id, task_id LIMIT lane.room FOR UPDATE SKIP LOCKED
    ) head
    ORDER BY head.score, head.job_id, head.task_id LIMIT %(batch)s
), moved AS (
    DELETE FROM waiting WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked))
), queued AS (
    INSERT INTO ready (task_id, lane_id, seq, score, job_id)
    SELECT task_id, lane_id, nextval('dispatch_sequence'), score, job_id FROM picked
)
UPDATE tasks SET status = 'queued', updated_at = statement_timestamp()
WHERE id = ANY (ARRAY(SELECT task_id FROM picked))
