-- Edges of a job about to be stored: each task waits for what it depends on.
INSERT INTO dependencies (task_id, depends_on_id, on_failure, met)
SELECT task_id, depends_on_id, on_failure, false
FROM unnest(%(task_id)b::bigint[], %(depends_on_id)b::bigint[], %(on_failure)b::text[])
    AS edge (task_id, depends_on_id, on_failure)
