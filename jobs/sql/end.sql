-- Ends attempts, whatever ended them, and moves each task on:
--   done                           -> done
--   else, once cancel was asked    -> cancelled
--   released                       -> queued, unharmed, at the front; pending if its job is paused
--   lost: its worker is gone       -> queued, at the front; failed (poison) when that makes
--                                     max_losses proven deaths of a worker under it, or
--                                     max_lost_attempts of this generation, proven or not;
--                                     pending if its job is paused
--   failed, timed_out              -> pending, after a backoff, while retries are left, its rules
--                                     (tasks.retry) let it, and its deadline leaves time; failed
-- Guard: the lease is held under the reported fencing token. What is not held is not in the
-- answer and nothing of it changes.
-- Backoff: base, base * (1 + retries) or base * 2^retries, up to a ceiling; half of it random
-- ("equal jitter", AWS Architecture Blog, Exponential Backoff And Jitter).
-- LATERAL has each lease looked up by its key, whatever the planner believes of the table: where it
-- takes it for empty (its rows live for moments, and VACUUM counts none) a plain join reads all of
-- it, dead rows too, and compares each with each report. The delete goes by key and not by ctid: a
-- cancel may have moved the row since this statement's snapshot.
WITH held AS (
    SELECT leases.*, report.*, due_at, CASE
        WHEN outcome = 'done' THEN 'done'
        WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
        WHEN outcome = 'lost' AND (
            loss_count + %(proven)s::int >= %(max_losses)s OR %(max_lost_attempts)s <= 1 + (
                SELECT count(*) FROM attempts past JOIN tasks ON tasks.id = past.task_id
                WHERE tasks.id = report.id AND past.outcome = 'lost'
                    AND past.generation = tasks.generation
            )
        ) THEN 'failed'
        WHEN outcome IN ('released', 'cancelled', 'lost') THEN 'queued'
        WHEN due_at < give_up_at THEN 'pending'
        ELSE 'failed'
    END AS status
    FROM unnest(
        %(task_id)b::bigint[], %(fencing_token)b::bigint[], %(outcome)b::text[],
        %(exit_code)b::int[], %(signal)b::smallint[], %(cpu_seconds)b::float8[],
        %(peak_memory_bytes)b::bigint[],
        %(error)b::text[], %(result)b::text[], %(output)b::text[]
    ) AS report (
        id, token, outcome, exit_code, signal, cpu_seconds, peak_memory_bytes,
        error, result, output
    )
    CROSS JOIN LATERAL (
        SELECT * FROM leases
        WHERE task_id = report.id AND fencing_token = report.token
            AND (%(worker_id)s::bigint IS NULL OR worker_id = %(worker_id)s)
        FOR UPDATE
    ) leases
    LEFT JOIN LATERAL (
        SELECT coalesce(deadline_at, 'infinity') AS give_up_at,
            statement_timestamp() + make_interval(secs => (0.5 + random() / 2) * least(
                ceiling_seconds, base_seconds * CASE backoff
                    WHEN 'fixed' THEN 1 WHEN 'linear' THEN 1 + retry_count
                    ELSE 2 ^ least(retry_count, 60)
                END
            )) AS due_at
        FROM tasks CROSS JOIN LATERAL (
            SELECT CASE WHEN outcome = 'timed_out' THEN '"timeout"' WHEN signal > 0 THEN '"signal"'
                ELSE to_jsonb(coalesce(report.exit_code, 0)) END AS by
        ) ended
        CROSS JOIN jsonb_to_record(%(retry)s::jsonb || coalesce(retry, '{}')) AS rule (
            backoff text, base_seconds float8, ceiling_seconds float8, retry_on jsonb, fail_on jsonb
        )
        WHERE id = report.id AND outcome IN ('failed', 'timed_out') AND retry_count < max_retries
            AND coalesce(retry_on @> ended.by, true) AND NOT fail_on @> ended.by
    ) again ON true
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
            WHEN held.status NOT IN ('queued', 'pending') THEN statement_timestamp()
        END,
        assigned_worker_id = CASE
            WHEN held.status NOT IN ('queued', 'pending') THEN held.worker_id
        END,
        avoided_worker_id = CASE
            WHEN held.status = 'pending' AND (retry->'elsewhere')::bool THEN held.worker_id
        END,
        retry_count = tasks.retry_count + (held.status = 'pending')::int,
        loss_count = tasks.loss_count + (held.outcome = 'lost' AND %(proven)s)::int,
        exit_code = held.exit_code,
        result_text = concat_ws(E'\n', CASE
            WHEN held.status <> 'failed' THEN NULL
            WHEN held.outcome = 'lost' THEN 'poison: lost too often with its worker'
            WHEN tasks.deadline_at <= statement_timestamp() THEN 'deadline passed'
            WHEN held.due_at IS NOT NULL THEN 'deadline too near to try again'
        END, nullif(held.result, ''))
    FROM held WHERE tasks.id = held.task_id
    RETURNING held.*, tasks.status AS now, generation, attempt, started_at, final_status,
        has_dependents
), recorded AS (
    INSERT INTO attempts (
        task_id, generation, number, fencing_token, worker_id, started_at, ended_at,
        outcome, exit_code, signal, cpu_seconds, peak_memory_bytes, error, output
    )
    SELECT id, generation, attempt, token, worker_id, started_at, statement_timestamp(),
        outcome, exit_code, signal, cpu_seconds, peak_memory_bytes,
        coalesce(error, ''), coalesce(output, '')
    FROM moved
), at_once AS (
    INSERT INTO ready (task_id, lane_id, seq, score, job_id)
    SELECT id, lane_id, seq, score, job_id FROM moved WHERE now = 'queued'
), put_aside AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT id, lane_id, 'paused', job_id::text, score, job_id FROM moved
    WHERE status = 'queued' AND now = 'pending'
), backed_off AS (
    INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT id, lane_id, due_at, score, job_id FROM moved WHERE status = 'pending'
), told AS (
    -- Read from the wide row, which is written anyway: an end that nobody awaits costs nothing.
    INSERT INTO ended_parents (task_id)
    SELECT id FROM moved WHERE has_dependents AND final_status IS NOT NULL
    RETURNING task_id
)
SELECT id, now, EXISTS (SELECT FROM told) FROM moved
