-- pending -> queued: the most urgent waiting tasks of each lane that has room, in policy order.
-- Each lane is read by index from its mark; only the few picked rows are sorted together.
-- Answers how many were promoted in each lane, and the key of the last.
WITH picked AS MATERIALIZED (
    SELECT head.* FROM unnest(
        %(lanes)b::bigint[], %(rooms)b::bigint[],
        %(scores)b::bigint[], %(job_ids)b::bigint[], %(task_ids)b::bigint[]
    ) AS lane (id, room, score, job_id, task_id)
    CROSS JOIN LATERAL (
        SELECT ctid, task_id, lane_id, score, job_id FROM waiting
        WHERE waiting.lane_id = lane.id
            AND (score, job_id, task_id) > (lane.score, lane.job_id, lane.task_id)
        ORDER BY score, job_id, task_id LIMIT lane.room FOR UPDATE SKIP LOCKED
    ) head
    ORDER BY head.score, head.job_id, head.task_id LIMIT %(batch)s
), moved AS (
    DELETE FROM waiting WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked))
), queued AS (
    INSERT INTO ready (task_id, lane_id, seq, score, job_id)
    SELECT task_id, lane_id, nextval('dispatch_sequence'), score, job_id FROM picked
), updated AS (
    UPDATE tasks SET status = 'queued', updated_at = statement_timestamp()
    WHERE id = ANY (ARRAY(SELECT task_id FROM picked))
        AND status = 'pending'  -- not what was recalled in this transaction
)
SELECT DISTINCT ON (lane_id)
    lane_id, count(*) OVER (PARTITION BY lane_id), score, job_id, task_id
FROM picked ORDER BY lane_id, score DESC, job_id DESC, task_id DESC
