-- queued -> pending: puts back what is less urgent than the head of what waits in its lane, so
-- that the latter is promoted first.
WITH picked AS MATERIALIZED (
    SELECT overtaken.* FROM unnest(%(lanes)s::bigint[]) AS lane (id)
    CROSS JOIN LATERAL (
        SELECT score, job_id, task_id FROM waiting WHERE waiting.lane_id = lane.id
        ORDER BY score, job_id, task_id LIMIT 1
    ) head
    CROSS JOIN LATERAL (
        SELECT ctid, task_id, lane_id, score, job_id FROM ready
        WHERE ready.lane_id = lane.id
            AND (ready.score, ready.job_id, ready.task_id) > (head.score, head.job_id, head.task_id)
        FOR UPDATE SKIP LOCKED
    ) overtaken
), moved AS (
    DELETE FROM ready WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked))
), waiting AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT task_id, lane_id, score, job_id FROM picked
)
UPDATE tasks SET status = 'pending', updated_at = statement_timestamp()
WHERE id = ANY (ARRAY(SELECT task_id FROM picked))
