-- How many tasks are in each state, counted up to a limit.
SELECT
    (SELECT count(*) FROM (
        SELECT FROM waiting UNION ALL SELECT FROM deferred UNION ALL SELECT FROM blocked
        LIMIT %(limit)s) found) AS pending,
    (SELECT count(*) FROM (SELECT FROM ready LIMIT %(limit)s) found) AS queued,
    (SELECT count(*) FROM (SELECT FROM leases LIMIT %(limit)s) found) AS in_progress,
    (SELECT count(*) FROM (SELECT FROM tasks
        WHERE final_status = 'done' LIMIT %(limit)s) found) AS done,
    (SELECT count(*) FROM (SELECT FROM tasks
        WHERE final_status = 'failed' LIMIT %(limit)s) found) AS failed,
    (SELECT count(*) FROM (SELECT FROM tasks
        WHERE final_status = 'cancelled' LIMIT %(limit)s) found) AS cancelled
