-- For each lane that a live worker serves: how many slots serve it, how many tasks stand ready
-- in it, and whether its most urgent waiting task comes before one of those.
SELECT
    lane.id,
    sum(worker.slots),
    (SELECT count(*) FROM ready WHERE ready.lane_id = lane.id),
    coalesce((
        SELECT (head.score, head.job_id, head.task_id) < (tail.score, tail.job_id, tail.task_id)
        FROM (
            SELECT score, job_id, task_id FROM waiting
            WHERE waiting.lane_id = lane.id ORDER BY score, job_id, task_id LIMIT 1
        ) head, (
            SELECT score, job_id, task_id FROM ready
            WHERE ready.lane_id = lane.id ORDER BY seq DESC LIMIT 1
        ) tail
    ), false)
FROM lanes lane
JOIN workers worker
    ON lane.requires <@ worker.capabilities
    AND (worker.queues = '{}' OR lane.queue = ANY (worker.queues))
WHERE worker.state = 'online'
    AND worker.last_heartbeat > statement_timestamp() - make_interval(secs => %(lease_seconds)s)
GROUP BY lane.id
