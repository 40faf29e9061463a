-- Ends attempts, whatever ended them, and moves each task on:
--   done                           -> done
--   else, once cancel was asked    -> cancelled
--   released                       -> queued, unharmed, at the front; pending if its job is paused
--   lost: its worker is gone       -> queued, at the front; failed (poison) when that makes
--                                     max_losses proven deaths of a worker under it, or
--                                     max_lost_attempts of this generation, proven or not;
--                                     pending if its job is paused
--   failed, timed_out              -> pending, after a backoff, while retries are left; failed
-- Guard: the lease is held under the reported fencing token. What is not held is not in the
-- answer and nothing of it changes.
-- Backoff: base * 2^retries up to a ceiling, half of it random ("equal jitter", AWS Architecture
-- Blog, Exponential Backoff And Jitter).
-- LATERAL has each lease looked up by its key, whatever the planner believes of the table: where it
-- takes it for empty (its rows live for moments, and VACUUM counts none) a plain join reads all of
-- it, dead rows too, and compares each with each report. The delete goes by key and not by ctid: a
-- cancel may have moved the row since this statement's snapshot.
WITH held AS (
    SELECT leases.*, report.*, CASE
        WHEN outcome = 'done' THEN 'done'
        WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
        WHEN outcome IN ('released', 'cancelled') THEN 'queued'
        WHEN outcome = 'lost' AND loss_count + %(proven)s::int >= %(max_losses)s
            THEN 'failed'
        WHEN outcome = 'lost' AND %(max_lost_attempts)s <= 1 + (
            SELECT count(*) FROM attempts JOIN tasks ON tasks.id = attempts.task_id
            WHERE attempts.task_id = leases.task_id AND attempts.outcome = 'lost'
                AND attempts.generation = tasks.generation
        ) THEN 'failed'
        WHEN outcome = 'lost' THEN 'queued'
        WHEN retry_count < max_retries THEN 'pending'
        ELSE 'failed'
    END AS status
    FROM (
        SELECT id, token, coalesce(outcome, 'done') AS outcome, exit_code, signal, cpu_seconds,
            peak_memory_bytes, coalesce(error, '') AS error, coalesce(result, '') AS result,
            coalesce(output, '') AS output
        FROM unnest(
            %(task_id)b::bigint[], %(fencing_token)b::bigint[], %(outcome)b::text[],
            %(exit_code)b::int[], %(signal)b::smallint[], %(cpu_seconds)b::float8[],
            %(peak_memory_bytes)b::bigint[],
            %(error)b::text[], %(result)b::text[], %(output)b::text[]
        ) AS sent (
            id, token, outcome, exit_code, signal, cpu_seconds, peak_memory_bytes,
            error, result, output
        )
    ) report CROSS JOIN LATERAL (
        SELECT * FROM leases
        WHERE task_id = report.id AND fencing_token = report.token
            AND (%(worker_id)s::bigint IS NULL OR worker_id = %(worker_id)s)
        FOR UPDATE
    ) leases
), ended AS (
    DELETE FROM leases WHERE task_id = ANY (ARRAY(SELECT task_id FROM held))
), job AS (
    -- A pause of one of them is waited for, or waits: see jobs/pausing.py.
    SELECT id, paused_at FROM jobs
    WHERE id = ANY (ARRAY(SELECT job_id FROM held WHERE status = 'queued'))
    FOR KEY SHARE
), moved AS (
    UPDATE tasks SET
        status = CASE
            WHEN held.status = 'queued'
                AND held.job_id = ANY (ARRAY(SELECT id FROM job WHERE paused_at IS NOT NULL))
            THEN 'pending' ELSE held.status
        END,
        updated_at = statement_timestamp(),
        completed_at = CASE
            WHEN held.status IN ('done', 'failed', 'cancelled') THEN statement_timestamp()
        END,
        assigned_worker_id = CASE
            WHEN held.status IN ('done', 'failed', 'cancelled') THEN tasks.assigned_worker_id
        END,
        retry_count = tasks.retry_count + (held.status = 'pending')::int,
        loss_count = tasks.loss_count + (held.outcome = 'lost' AND %(proven)s)::int,
        exit_code = held.exit_code,
        result_text = CASE
            WHEN held.outcome = 'lost' AND held.status = 'failed'
            THEN concat_ws(E'\n', 'poison: lost too often with its worker', nullif(held.result, ''))
            ELSE held.result
        END
    FROM held WHERE tasks.id = held.task_id
    RETURNING tasks.id, tasks.status, tasks.generation, tasks.attempt, tasks.fencing_token,
        tasks.started_at, tasks.has_dependents, held.worker_id, held.outcome, held.exit_code,
        held.signal, held.cpu_seconds, held.peak_memory_bytes, held.error, held.output
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
    SELECT task_id, lane_id, seq, score, job_id FROM held
    WHERE status = 'queued'
        AND job_id <> ALL (ARRAY(SELECT id FROM job WHERE paused_at IS NOT NULL))
), put_aside AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT task_id, lane_id, 'paused', job_id::text, score, job_id FROM held
    WHERE status = 'queued'
        AND job_id = ANY (ARRAY(SELECT id FROM job WHERE paused_at IS NOT NULL))
), backed_off AS (
    INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT task_id, lane_id,
        statement_timestamp() + make_interval(secs => (0.5 + random() / 2) * least(
            %(backoff_ceiling_seconds)s, %(backoff_base_seconds)s * 2 ^ least(retry_count, 60)
        )),
        score, job_id
    FROM held WHERE status = 'pending'
), told AS (
    -- Read from the wide row, which is written anyway: an end that nobody awaits costs nothing.
    INSERT INTO ended_parents (task_id)
    SELECT id FROM moved WHERE has_dependents AND status IN ('done', 'failed', 'cancelled')
    RETURNING task_id
)
SELECT id, status, EXISTS (SELECT FROM told) FROM moved
