-- The wide task (of several slots) for which this worker, with `limit` slots free, makes room, by
-- claiming nothing less urgent: that takes only the most urgent. Room for the first task of a lane
-- that fits nowhere is made by the worker with the most free slots, for the second by the next, and
-- so on. So no wide task waits for ever behind narrow ones, and no other worker stands idle for it.
WITH served AS MATERIALIZED (
    SELECT lane.*, coalesce(mark.seq, -9223372036854775808) AS seq FROM lanes lane
    JOIN workers worker
        ON lane.requires <@ worker.capabilities AND lane.slots <= worker.slots
        AND (worker.queues = '{}' OR lane.queue = ANY (worker.queues))
    LEFT JOIN unnest(%(lanes)b::bigint[], %(seqs)b::bigint[]) AS mark (lane_id, seq)
        ON mark.lane_id = lane.id
    WHERE lane.slots > 1 AND worker.id = %(worker_id)s
        AND NOT EXISTS (SELECT FROM queues WHERE name = lane.queue AND paused_at IS NOT NULL)
), other AS MATERIALIZED (
    SELECT id, queues, capabilities, slots, slots - coalesce((
        SELECT sum(lanes.slots) FROM leases JOIN lanes ON lanes.id = lane_id
        WHERE worker_id = workers.id
    ), 0) AS free
    FROM workers
    WHERE id <> %(worker_id)s AND state = 'online'
        AND last_heartbeat > statement_timestamp() - make_interval(secs => %(lease_seconds)s)
)
SELECT task.score, task.job_id, task.task_id FROM served
CROSS JOIN LATERAL (
    SELECT FROM ready WHERE lane_id = served.id AND ready.seq >= served.seq
    ORDER BY ready.seq OFFSET %(limit)s / served.slots LIMIT 1
) fits_not
CROSS JOIN LATERAL (
    SELECT score, job_id, task_id FROM ready
    WHERE lane_id = served.id AND ready.seq >= served.seq
    ORDER BY ready.seq OFFSET %(limit)s / served.slots + (
        SELECT count(*) FROM other
        WHERE (free, %(worker_id)s) > (%(limit)s, id)
            AND served.requires <@ capabilities AND served.slots <= slots
            AND (queues = '{}' OR served.queue = ANY (queues))
    ) LIMIT 1
) task
ORDER BY task.score, task.job_id, task.task_id LIMIT 1
