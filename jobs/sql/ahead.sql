-- How many tasks come before this one in its lane, counted up to limit: waiting, and ready; and
-- whether their queue is paused.
SELECT
    (SELECT count(*) FROM (
        SELECT FROM waiting JOIN waiting this ON this.task_id = %(task_id)s
        WHERE waiting.lane_id = this.lane_id
            AND (waiting.score, waiting.job_id, waiting.task_id)
                < (this.score, this.job_id, this.task_id)
        LIMIT %(limit)s) found),
    (SELECT count(*) FROM (
        SELECT FROM ready WHERE ready.lane_id = %(lane_id)s
            AND seq < coalesce(
                (SELECT seq FROM ready WHERE task_id = %(task_id)s), 9223372036854775807)
        LIMIT %(limit)s) found),
    EXISTS (
        SELECT FROM lanes JOIN queues ON queues.name = lanes.queue
        WHERE lanes.id = %(lane_id)s AND paused_at IS NOT NULL)
