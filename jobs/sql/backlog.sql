-- How many tasks are pending, counted up to a limit: by index-only scans.
SELECT count(*) FROM (
    (SELECT FROM waiting LIMIT %(limit)s) UNION ALL (SELECT FROM deferred LIMIT %(limit)s)
    UNION ALL (SELECT FROM blocked LIMIT %(limit)s)
) found
