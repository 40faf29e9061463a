-- Lanes in which tasks wait: how many (counted up to limit), and for how long, in seconds, the
-- one that comes next has been there; and whether their queue is paused, or at its limit.
SELECT
    lane.id,
    (SELECT count(*) FROM (
        SELECT FROM waiting WHERE waiting.lane_id = lane.id LIMIT %(limit)s) found),
    extract(epoch FROM now() - greatest(task.updated_at, task.run_after))::float8,
    EXISTS (SELECT FROM queues WHERE name = lane.queue AND paused_at IS NOT NULL),
    coalesce((
        SELECT max_running FROM queues WHERE name = lane.queue AND max_running IS NOT NULL
    ) <= (
        SELECT count(*) FROM (SELECT lane_id FROM ready UNION ALL SELECT lane_id FROM leases) live
        WHERE lane_id = ANY (ARRAY(SELECT id FROM lanes own WHERE own.queue = lane.queue))
    ), false)
FROM lanes lane
CROSS JOIN LATERAL (
    SELECT task_id FROM waiting WHERE waiting.lane_id = lane.id
    ORDER BY score, job_id, task_id LIMIT 1
) head
JOIN tasks task ON task.id = head.task_id
ORDER BY lane.id
