-- Which of these idle workers may claim something: of those who serve a lane, by chance as many as
-- it has tasks, up to `limit`. And who is not online: it has to hear that.
WITH work AS MATERIALIZED (
    SELECT lane.queue, lane.requires, lane.slots, head.tasks FROM lanes lane
    CROSS JOIN LATERAL (
        SELECT count(*) AS tasks FROM (
            SELECT FROM ready WHERE ready.lane_id = lane.id ORDER BY seq LIMIT %(limit)s
        ) found
    ) head
    WHERE head.tasks > 0
        AND NOT EXISTS (SELECT FROM queues WHERE name = lane.queue AND paused_at IS NOT NULL)
)
SELECT id FROM workers WHERE id = ANY (%(workers)b::bigint[]) AND state <> 'online'
UNION
SELECT chosen.id FROM work CROSS JOIN LATERAL (
    SELECT id FROM workers
    WHERE id = ANY (%(workers)b::bigint[]) AND state = 'online'
        AND work.requires <@ capabilities AND work.slots <= workers.slots
        AND (queues = '{}' OR work.queue = ANY (queues))
    ORDER BY random() LIMIT work.tasks
) chosen
