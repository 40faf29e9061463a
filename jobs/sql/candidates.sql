-- What promotion may choose from where there are limits: the head of each lane that has room, as far
-- as `reach`, and of each line (what the limit of a key holds back, `blocked`, in one lane) the head,
-- as far as its key has room. Of each: what room its key and its queue have, NULL for any.
-- Visits up to `lines` lines, from `after_key`, `after_lane` on, and answers in a row without a task
-- where it stopped (NULL: at the end). Of a key whose line it does not visit it says there is no room.
-- Only promotion adds to ready and leases, and the caller holds its lock: while it chooses, what is
-- counted here can become fewer, and not more.
WITH RECURSIVE queue_ AS MATERIALIZED (
    SELECT name, max_running - (
        SELECT count(*) FROM (SELECT lane_id FROM ready UNION ALL SELECT lane_id FROM leases) live
        WHERE lane_id = ANY (ARRAY(SELECT id FROM lanes WHERE lanes.queue = queues.name))
    ) AS room
    FROM queues WHERE max_running IS NOT NULL
), lane AS MATERIALIZED (
    SELECT asked.id, score, job_id, task_id, lanes.queue, queue_.room AS of_queue,
        least(asked.room, queue_.room) AS room
    FROM unnest(
        %(lanes)b::bigint[], %(rooms)b::bigint[],
        %(scores)b::bigint[], %(job_ids)b::bigint[], %(task_ids)b::bigint[]
    ) AS asked (id, room, score, job_id, task_id)
    JOIN lanes ON lanes.id = asked.id
    LEFT JOIN queue_ ON queue_.name = lanes.queue
    WHERE queue_.room IS NULL OR queue_.room > 0
), head AS MATERIALIZED (
    SELECT found.*, concurrency_key AS key, attempt, lane.queue, lane.of_queue
    FROM lane
    CROSS JOIN LATERAL (
        SELECT task_id, lane_id, score, job_id FROM waiting
        WHERE waiting.lane_id = lane.id
            AND (score, job_id, task_id) > (lane.score, lane.job_id, lane.task_id)
        ORDER BY score, job_id, task_id LIMIT greatest(lane.room, %(reach)s) FOR UPDATE SKIP LOCKED
    ) found
    CROSS JOIN LATERAL (
        SELECT concurrency_key, attempt FROM tasks WHERE id = found.task_id OFFSET 0
    ) task
    ORDER BY score, job_id, task_id LIMIT %(batch)s
), line (key, lane_id) AS (
    (SELECT key::text, lane_id FROM blocked
    WHERE reason = 'limit' AND (key, lane_id) > (%(after_key)s, %(after_lane)s)
    ORDER BY key, lane_id LIMIT 1)
    UNION ALL
    SELECT next.* FROM line CROSS JOIN LATERAL (
        SELECT key::text, lane_id FROM blocked
        WHERE reason = 'limit' AND (key, lane_id) > (line.key, line.lane_id)
        ORDER BY key, lane_id LIMIT 1
    ) next
), visited AS MATERIALIZED (
    SELECT * FROM line LIMIT %(lines)s
), asked AS MATERIALIZED (
    SELECT key, lane_id FROM visited
    UNION ALL SELECT DISTINCT key, NULL::bigint FROM head
        WHERE key <> '' AND key NOT IN (SELECT key FROM visited)
), running AS MATERIALIZED (
    SELECT key, count(*) AS n FROM permits
    WHERE (SELECT task_id FROM ready WHERE ready.task_id = permits.task_id) IS NOT NULL
        OR (SELECT task_id FROM leases WHERE leases.task_id = permits.task_id) IS NOT NULL
    GROUP BY key
), limited AS MATERIALIZED (
    SELECT asked.key, lane_id, CASE
        WHEN lane_id IS NULL AND (
            SELECT true FROM blocked WHERE reason = 'limit' AND blocked.key = asked.key LIMIT 1
        ) THEN 0
        ELSE limit_.max_running - coalesce(running.n, 0)
    END AS room, least(rate_count, coalesce(bucket.tokens, rate_count) + rate_count / rate_seconds
        * greatest(0, extract(epoch FROM statement_timestamp() - bucket.filled_at)))::float8 AS tokens
    FROM asked
    CROSS JOIN LATERAL limit_of(asked.key) limit_
    LEFT JOIN running ON running.key = asked.key
    LEFT JOIN LATERAL (
        SELECT tokens, filled_at FROM buckets WHERE buckets.key = asked.key
            AND rate_count IS NOT NULL
        OFFSET 0
    ) bucket ON true
), freed AS MATERIALIZED (
    SELECT found.*, limited.key, limited.room, tokens, lane.queue, lane.of_queue
    FROM limited
    CROSS JOIN LATERAL (SELECT * FROM lane WHERE id = limited.lane_id OFFSET 0) lane
    CROSS JOIN LATERAL (
        SELECT task_id, lane_id, score, job_id FROM blocked
        WHERE reason = 'limit' AND blocked.key = limited.key AND blocked.lane_id = limited.lane_id
        ORDER BY score, job_id, task_id
        LIMIT greatest(0, least(lane.room, limited.room, floor(limited.tokens))::bigint)
        FOR UPDATE SKIP LOCKED
    ) found
    WHERE limited.room IS NULL OR limited.room > 0
    ORDER BY score, job_id, task_id LIMIT %(batch)s
)
SELECT score, job_id, task_id, head.lane_id, true, queue, of_queue, limited.key, limited.room,
    tokens, limited.key IS NOT NULL AND coalesce((
        SELECT attempt FROM permits WHERE permits.task_id = head.task_id
    ) = head.attempt, false), statement_timestamp()
FROM head LEFT JOIN (SELECT DISTINCT ON (key) * FROM limited ORDER BY key) limited
    ON limited.key = head.key
UNION ALL
SELECT score, job_id, task_id, lane_id, false, queue, of_queue, key, room, tokens, false,
    statement_timestamp()
FROM freed
UNION ALL
(SELECT 0, 0, NULL, lane_id, NULL, NULL, NULL, key, NULL, NULL, NULL, NULL FROM visited
WHERE (SELECT count(*) FROM visited) >= %(lines)s ORDER BY key DESC, lane_id DESC LIMIT 1)
