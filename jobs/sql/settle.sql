-- Jobs of which no task is unfinished any more. Their rows were locked by the statement before
-- this one, so that a retry cannot slip between looking and writing.
UPDATE jobs SET finished_at = now()
WHERE id = ANY (%(ids)s) AND NOT EXISTS (
    SELECT FROM tasks WHERE tasks.job_id = jobs.id AND tasks.final_status IS NULL
)
RETURNING id
