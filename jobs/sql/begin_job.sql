-- A job without its tasks yet, and the lanes that its queue has so far.
WITH job AS (
    INSERT INTO jobs (name, queue, labels, "unique", submitted_by, created_at)
    VALUES (
        %(name)s, %(queue)s, %(labels)s::jsonb, %(unique)s::jsonb, %(submitted_by)s,
        statement_timestamp()
    )
    RETURNING id, queue, created_at
)
SELECT job.id, job.created_at, lanes.id, lanes.requires, lanes.slots
FROM job LEFT JOIN lanes ON lanes.queue = job.queue
