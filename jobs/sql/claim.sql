-- queued -> in_progress: tasks of up to `limit` slots from the lanes this boot of the worker serves,
-- and none that is less urgent than one which does not fit, or than the one given (room.sql).
-- Each lane is read by index from its mark, the dispatch sequence up to which it was read before.
-- Not what waits although its deadline has passed (overdue.sql fails it), nor, for a short time, what
-- failed on this worker last and would rather be tried elsewhere, if there is another worker.
-- Within a lane the dispatch sequence is the policy's order; between lanes the score decides.
WITH served AS MATERIALIZED (
    SELECT lane.id, lane.slots, coalesce(mark.seq, -9223372036854775808) AS seq FROM lanes lane
    JOIN workers worker
        ON lane.requires <@ worker.capabilities AND lane.slots <= worker.slots
        AND (worker.queues = '{}' OR lane.queue = ANY (worker.queues))
    LEFT JOIN unnest(%(lanes)b::bigint[], %(seqs)b::bigint[]) AS mark (lane_id, seq)
        ON mark.lane_id = lane.id
    WHERE worker.id = %(worker_id)s
        AND worker.boot_id = %(boot_id)s AND worker.state = 'online'
        AND NOT EXISTS (SELECT FROM queues WHERE name = lane.queue AND paused_at IS NOT NULL)
), passed_over AS MATERIALIZED (
    SELECT id FROM tasks WHERE completed_at IS NULL AND deadline_at <= statement_timestamp()
    UNION ALL
    SELECT id FROM tasks
    WHERE completed_at IS NULL AND avoided_worker_id = %(worker_id)s AND status = 'queued'
        AND updated_at > statement_timestamp() - make_interval(secs => %(elsewhere_seconds)s)
        AND EXISTS (
            SELECT FROM workers WHERE id <> avoided_worker_id AND state = 'online'
                AND last_heartbeat
                    > statement_timestamp() - make_interval(secs => %(lease_seconds)s)
            OFFSET 0
        )
), picked AS MATERIALIZED (
    SELECT * FROM (
        SELECT head.*, sum(served.slots) OVER (
            ORDER BY head.score, head.job_id, head.task_id ROWS UNBOUNDED PRECEDING
        ) AS slots_taken
        FROM served CROSS JOIN LATERAL (
            SELECT ctid, task_id, score, job_id, seq FROM ready
            WHERE ready.lane_id = served.id AND ready.seq >= served.seq
                AND task_id <> ALL (ARRAY(SELECT id FROM passed_over))
            ORDER BY seq LIMIT %(limit)s / served.slots FOR UPDATE SKIP LOCKED
        ) head
        WHERE (head.score, head.job_id, head.task_id)
            < (%(room_score)s::bigint, %(room_job_id)s::bigint, %(room_task_id)s::bigint)
    ) head WHERE slots_taken <= %(limit)s
), taken AS (
    DELETE FROM ready WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked))
), running AS (
    UPDATE tasks SET
        status = 'in_progress',
        assigned_worker_id = %(worker_id)s,
        attempt = attempt + 1,
        fencing_token = fencing_token + 1,
        started_at = statement_timestamp(),
        updated_at = statement_timestamp()
    FROM unnest(
        ARRAY(SELECT task_id FROM picked), ARRAY(SELECT seq FROM picked)
    ) AS taken (task_id, seq)
    WHERE tasks.id = taken.task_id
    RETURNING id, tasks.job_id, name, kind, payload, attempt, fencing_token, least(
            timeout_seconds, extract(epoch FROM deadline_at - statement_timestamp())::float8
        ) AS timeout_seconds, started_at, slots, retry_count, max_retries, loss_count, lane_id,
        taken.seq, score
), leased AS (
    INSERT INTO leases (
        task_id, worker_id, fencing_token, claimed_at, deadline_at,
        retry_count, max_retries, loss_count, lane_id, seq, score, job_id
    )
    SELECT
        id, %(worker_id)s, fencing_token, started_at,
        started_at + make_interval(secs => timeout_seconds + %(grace_seconds)s),
        retry_count, max_retries, loss_count, lane_id, seq, score, job_id
    FROM running
)
SELECT id, job_id, name, kind, payload, attempt, fencing_token, timeout_seconds, started_at,
    slots, lane_id, seq, EXISTS (SELECT FROM lanes WHERE slots > 1)
FROM running ORDER BY score, job_id, id
