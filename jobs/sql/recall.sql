-- The first half of queued -> pending: puts back, from these lanes, what is less urgent than the
-- score given for each, so that what waits there with that score is promoted first. The other half,
-- put_back.sql, follows in the same transaction, for what is then not promoted again: mostly little.
WITH picked AS MATERIALIZED (
    SELECT overtaken.* FROM unnest(
        %(lanes)b::bigint[], %(scores)b::bigint[], %(seqs)b::bigint[]
    ) AS lane (id, score, seq)
    CROSS JOIN LATERAL (
        SELECT ctid, task_id, lane_id, score, job_id FROM ready
        WHERE ready.lane_id = lane.id AND ready.seq >= lane.seq AND ready.score > lane.score
        FOR UPDATE SKIP LOCKED
    ) overtaken
), moved AS (
    DELETE FROM ready WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked))
), waiting AS (
    INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT task_id, lane_id, score, job_id FROM picked
)
SELECT lane_id, task_id FROM picked
