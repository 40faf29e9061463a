-- Ends attempts, whatever ended them, and moves each task on:
--   done                           -> done
--   else, once cancel was asked    -> cancelled
--   released                       -> queued, unharmed, at the front
--   lost: its worker is gone       -> queued, at the front; failed (poison) when that makes
--                                     max_losses proven deaths of a worker under it
--   failed, timed_out              -> pending, after a backoff, while retries are left; failed
-- Guard: the lease is held under the reported fencing token. What is not held is not in the
-- answer and nothing of it changes.
-- Backoff: base * 2^retries up to a ceiling, half of it random ("equal jitter", AWS Architecture
-- Blog, Exponential Backoff And Jitter).
WITH report AS MATERIALIZED (
    SELECT * FROM unnest(
        %(task_id)s::bigint[], %(fencing_token)s::bigint[], %(outcome)s::text[],
        %(exit_code)s::int[], %(signal)s::smallint[], %(cpu_seconds)s::float8[],
        %(peak_memory_bytes)s::bigint[], %(error)s::text[], %(result)s::text[], %(output)s::text[]
    ) AS report (
        task_id, fencing_token, outcome, exit_code, signal, cpu_seconds, peak_memory_bytes,
        error, result, output
    )
), held AS MATERIALIZED (
    SELECT lease.*, report.outcome, report.exit_code, report.signal, report.cpu_seconds,
        report.peak_memory_bytes, report.error, report.result, report.output
    FROM leases lease JOIN report USING (task_id, fencing_token)
    WHERE %(worker_id)s::bigint IS NULL OR lease.worker_id = %(worker_id)s
    ORDER BY lease.task_id FOR UPDATE OF lease
), ended AS (
    DELETE FROM leases USING held WHERE leases.task_id = held.task_id
    RETURNING held.*, CASE
        WHEN held.outcome = 'done' THEN 'done'
        WHEN held.cancel_requested_at IS NOT NULL THEN 'cancelled'
        WHEN held.outcome IN ('released', 'cancelled') THEN 'queued'
        WHEN held.outcome = 'lost' AND held.loss_count + %(proven)s::int >= %(max_losses)s
            THEN 'failed'
        WHEN held.outcome = 'lost' THEN 'queued'
        WHEN held.retry_count < held.max_retries THEN 'pending'
        ELSE 'failed'
    END AS status
), moved AS (
    UPDATE tasks SET
        status = ended.status,
        updated_at = statement_timestamp(),
        completed_at = CASE
            WHEN ended.status IN ('done', 'failed', 'cancelled') THEN statement_timestamp()
        END,
        assigned_worker_id = CASE
            WHEN ended.status IN ('done', 'failed', 'cancelled') THEN tasks.assigned_worker_id
        END,
        retry_count = tasks.retry_count + (ended.status = 'pending')::int,
        loss_count = tasks.loss_count + (ended.outcome = 'lost' AND %(proven)s)::int,
        exit_code = ended.exit_code,
        result_text = ended.result
    FROM ended WHERE tasks.id = ended.task_id
    RETURNING tasks.id, tasks.status, tasks.generation, tasks.attempt, tasks.fencing_token,
        tasks.started_at, ended.worker_id, ended.outcome, ended.exit_code, ended.signal,
        ended.cpu_seconds, ended.peak_memory_bytes, ended.error, ended.output
), recorded AS (
    INSERT INTO attempts (
        task_id, generation, number, fencing_token, worker_id, started_at, ended_at,
        outcome, exit_code, signal, cpu_seconds, peak_memory_bytes, error, output
    )
    SELECT id, generation, attempt, fencing_token, worker_id, started_at, statement_timestamp(),
        outcome, exit_code, signal, cpu_seconds, peak_memory_bytes, error, output
    FROM moved
), again AS (
    INSERT INTO ready (task_id, lane_id, seq, score, job_id)
    SELECT task_id, lane_id, seq, score, job_id FROM ended WHERE status = 'queued'
), backed_off AS (
    INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT task_id, lane_id,
        statement_timestamp() + make_interval(secs => (0.5 + random() / 2) * least(
            %(backoff_ceiling_seconds)s, %(backoff_base_seconds)s * 2 ^ least(retry_count, 60)
        )),
        score, job_id
    FROM ended WHERE status = 'pending'
)
SELECT id, fencing_token, status FROM moved
