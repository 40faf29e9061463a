-- The ids of tasks about to be stored, in their order: their edges name them.
SELECT nextval('tasks_id_seq') FROM generate_series(1, %(count)s)
