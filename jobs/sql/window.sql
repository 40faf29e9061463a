-- For each lane that a live worker serves, of queues that are not paused: how many of its tasks the
-- slots that serve it hold, how many stand ready in it and from which dispatch sequence on, the score
-- of the last of them, and that of the head of what waits; and whether there are limits at all. Reads
-- both indexes from the marks on.
SELECT
    lane.id,
    lane.slots,
    window_.ready,
    coalesce(window_.first_seq, dispatch.last_value),
    (
        SELECT score FROM ready WHERE ready.lane_id = lane.id AND seq >= window_.first_seq
        ORDER BY seq DESC LIMIT 1
    ),
    (
        SELECT score FROM waiting
        WHERE waiting.lane_id = lane.id
            AND (score, job_id, task_id) > (lane.score, lane.job_id, lane.task_id)
        ORDER BY score, job_id, task_id LIMIT 1
    ),
    (SELECT EXISTS (SELECT FROM limits)
        OR EXISTS (SELECT FROM queues WHERE max_running IS NOT NULL))
FROM (
    SELECT
        lanes.id,
        sum(worker.slots / lanes.slots) AS slots,
        coalesce(min(mark.seq), -9223372036854775808) AS seq,
        coalesce(min(mark.score), -9223372036854775808) AS score,
        coalesce(min(mark.job_id), 0) AS job_id,
        coalesce(min(mark.task_id), 0) AS task_id
    FROM lanes
    JOIN workers worker
        ON lanes.requires <@ worker.capabilities AND lanes.slots <= worker.slots
        AND (worker.queues = '{}' OR lanes.queue = ANY (worker.queues))
    LEFT JOIN unnest(
        %(lanes)b::bigint[], %(seqs)b::bigint[],
        %(scores)b::bigint[], %(job_ids)b::bigint[], %(task_ids)b::bigint[]
    ) AS mark (lane_id, seq, score, job_id, task_id) ON mark.lane_id = lanes.id
    WHERE worker.state = 'online'
        AND worker.last_heartbeat > statement_timestamp() - make_interval(secs => %(lease_seconds)s)
        AND NOT EXISTS (SELECT FROM queues WHERE name = lanes.queue AND paused_at IS NOT NULL)
    GROUP BY lanes.id
) lane
CROSS JOIN dispatch_sequence dispatch
CROSS JOIN LATERAL (
    SELECT count(*) AS ready, min(seq) AS first_seq FROM (
        SELECT seq FROM ready WHERE ready.lane_id = lane.id AND seq >= lane.seq ORDER BY seq
    ) found
) window_
