-- What is queued or runs of keys that have a limit, and was promoted before they had, counts too.
INSERT INTO permits (task_id, key, attempt, promoted_at)
SELECT live.task_id, concurrency_key, attempt, now()
FROM (SELECT task_id FROM ready UNION ALL SELECT task_id FROM leases) live
CROSS JOIN LATERAL (
    SELECT concurrency_key, attempt FROM tasks WHERE id = live.task_id AND concurrency_key <> ''
    OFFSET 0
) task
WHERE EXISTS (SELECT FROM limit_of(concurrency_key))
ON CONFLICT (task_id) DO NOTHING
