-- pending -> queued, in this order, for tasks that candidates.sql locked; and what of them is over the
-- limit of its key (`aside`) goes into its line. Permits say of which limited key a task is, buckets
-- what its rate has left.
WITH chosen AS MATERIALIZED (
    SELECT * FROM unnest(
        %(task_id)b::bigint[], %(lane)b::bigint[], %(score)b::bigint[], %(job_id)b::bigint[],
        %(key)b::text[]
    ) WITH ORDINALITY AS chosen (task_id, lane_id, score, job_id, key, n)
    ORDER BY n
), gone AS (
    DELETE FROM waiting WHERE task_id = ANY (%(heads)b::bigint[])
    RETURNING task_id, lane_id, score, job_id
), gone_line AS (
    DELETE FROM blocked WHERE task_id = ANY (%(freed)b::bigint[])
), put_aside AS (
    INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT task_id, lane_id, 'limit', aside.key, score, job_id
    FROM unnest(%(aside)b::bigint[], %(aside_keys)b::text[]) AS aside (id, key)
    JOIN gone ON gone.task_id = aside.id
), put_back AS (
    UPDATE tasks SET status = 'pending', updated_at = statement_timestamp()
    WHERE id = ANY (%(aside)b::bigint[]) AND status = 'queued'  -- recalled in this transaction
), queued AS (
    INSERT INTO ready (task_id, lane_id, seq, score, job_id)
    SELECT task_id, lane_id, nextval('dispatch_sequence'), score, job_id FROM chosen
), updated AS (
    UPDATE tasks SET status = 'queued', updated_at = statement_timestamp()
    WHERE id = ANY (ARRAY(SELECT task_id FROM chosen))
        AND status = 'pending'  -- not what was recalled in this transaction, and has its permit
    RETURNING id, attempt
), spent AS (
    INSERT INTO buckets (key, tokens, filled_at)
    SELECT key, tokens, %(at)s::timestamptz
    FROM unnest(%(rated)b::text[], %(tokens)b::float8[]) AS spent (key, tokens)
    ON CONFLICT (key) DO UPDATE SET tokens = excluded.tokens, filled_at = excluded.filled_at
)
INSERT INTO permits (task_id, key, attempt, promoted_at)
SELECT task_id, key, attempt, statement_timestamp()
FROM chosen JOIN updated ON updated.id = chosen.task_id WHERE key IS NOT NULL
ON CONFLICT (task_id) DO UPDATE SET
    key = excluded.key, attempt = excluded.attempt, promoted_at = excluded.promoted_at
