-- Permits of tasks that have ended, or wait for something other than their turn, count for nothing.
DELETE FROM permits
WHERE (SELECT task_id FROM ready WHERE ready.task_id = permits.task_id) IS NULL
    AND (SELECT task_id FROM leases WHERE leases.task_id = permits.task_id) IS NULL
    AND (SELECT task_id FROM waiting WHERE waiting.task_id = permits.task_id) IS NULL
