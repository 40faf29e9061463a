-- How far jobs are: for each, its tasks by state, up to limit of each ended state and of live
-- ones. Index-only on tasks_of_job; ready and leases are short by design.
SELECT
    job.id,
    (SELECT count(*) FROM (SELECT FROM tasks
        WHERE job_id = job.id AND final_status = 'done' LIMIT %(limit)s) found) AS done,
    (SELECT count(*) FROM (SELECT FROM tasks
        WHERE job_id = job.id AND final_status = 'failed' LIMIT %(limit)s) found) AS failed,
    (SELECT count(*) FROM (SELECT FROM tasks
        WHERE job_id = job.id AND final_status = 'cancelled' LIMIT %(limit)s) found) AS cancelled,
    (SELECT count(*) FROM (SELECT FROM tasks
        WHERE job_id = job.id AND final_status IS NULL LIMIT %(limit)s) found) AS live,
    coalesce(running.n, 0),
    coalesce(queued.n, 0)
FROM unnest(%(ids)s::bigint[]) AS job (id)
LEFT JOIN (
    SELECT job_id, count(*) AS n FROM leases WHERE job_id = ANY (%(ids)s) GROUP BY job_id
) running ON running.job_id = job.id
LEFT JOIN (
    SELECT job_id, count(*) AS n FROM ready WHERE job_id = ANY (%(ids)s) GROUP BY job_id
) queued ON queued.job_id = job.id
