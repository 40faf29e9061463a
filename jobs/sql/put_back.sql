-- queued -> pending, the wide half: of these tasks, which recall.sql moved in this transaction, those
-- that still wait.
UPDATE tasks SET status = 'pending', updated_at = statement_timestamp()
WHERE id = ANY (ARRAY(SELECT task_id FROM waiting WHERE task_id = ANY (%(ids)b::bigint[])))
