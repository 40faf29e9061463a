"""What must be true of the database at any moment, each invariant once, as SQL that finds breaches.

Each verb of jobs/queue.py keeps them by moving narrow and wide row in one statement; `manage.py
audit` proves it on what is there. (jobs/audit.py is something else: the trail of who did what.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.apps import apps
from django.db import connection, transaction

from dtsproject.conf import conf

APPS = ("jobs", "workers", "scheduling")
SHOWN_IDS = 10
# A running recovery takes a lease back well before as many leases of silence.
SILENT_LEASES = 5

QUESTION = """
WITH narrow AS (
    SELECT task_id, lane_id, score, job_id, 'pending' AS status FROM waiting
    UNION ALL SELECT task_id, lane_id, score, job_id, 'pending' FROM deferred
    UNION ALL SELECT task_id, lane_id, score, job_id, 'pending' FROM blocked
    UNION ALL SELECT task_id, lane_id, score, job_id, 'queued' FROM ready
    UNION ALL SELECT task_id, lane_id, score, job_id, 'in_progress' FROM leases
), found (id) AS MATERIALIZED (
    {breaches}
)
SELECT count(*), ARRAY(SELECT id FROM found ORDER BY id LIMIT %(shown)s) FROM found
"""


class Invariant(NamedTuple):
    """`breaches` selects the ids of those rows, each an `of`, for which `meaning` is not true."""

    name: str
    meaning: str
    remedy: str
    breaches: str
    of: str = "task"
    warning: bool = False


class Finding(NamedTuple):
    """What one invariant's look brought: how many breaches, and the ids of the first few."""

    invariant: Invariant
    breaches: int
    ids: list[int | str]


KEEP = "DTS never writes this: keep the rows of this task and report a bug"
WRITER = "find what wrote this row beside jobs/queue.py"
RESTORE = "something deleted rows by hand: restore them, or delete what refers to them"

INVARIANTS = (
    Invariant(
        "live_task_placed",
        "a task that has not ended is in a narrow table",
        "it would never run: put it into `waiting` with its lane, score and job",
        """SELECT id FROM tasks WHERE final_status IS NULL
            AND NOT EXISTS (SELECT FROM narrow WHERE task_id = tasks.id)""",
    ),
    Invariant(
        "placed_once",
        "a task is in one narrow table only",
        "it could run twice: delete the row that its status does not name",
        "SELECT task_id FROM narrow GROUP BY task_id HAVING count(*) > 1",
    ),
    Invariant(
        "place_matches_status",
        "pending tasks are waiting, deferred or blocked, queued ones ready, running ones leased",
        WRITER,
        """SELECT DISTINCT tasks.id FROM narrow JOIN tasks ON tasks.id = task_id
            WHERE tasks.final_status IS NULL AND tasks.status <> narrow.status""",
    ),
    Invariant(
        "ended_task_gone",
        "a task that has ended is in no narrow table",
        "it could run again: delete its narrow row",
        """SELECT DISTINCT tasks.id FROM narrow JOIN tasks ON tasks.id = task_id
            WHERE tasks.final_status IS NOT NULL""",
    ),
    Invariant(
        "narrow_row_has_task",
        "the task of a narrow row exists",
        RESTORE,
        """SELECT DISTINCT task_id FROM narrow
            WHERE NOT EXISTS (SELECT FROM tasks WHERE tasks.id = task_id)""",
    ),
    Invariant(
        "narrow_copies_agree",
        "a narrow row's lane, score and job are its task's",
        WRITER,
        """SELECT tasks.id FROM narrow JOIN tasks ON tasks.id = task_id
            WHERE (narrow.lane_id, narrow.score, narrow.job_id)
                <> (tasks.lane_id, tasks.score, tasks.job_id)""",
    ),
    Invariant(
        "lease_copies_agree",
        "a lease's fencing token, claim, counts and wish to cancel are its task's",
        WRITER,
        """SELECT tasks.id FROM leases JOIN tasks ON tasks.id = task_id
            WHERE leases.fencing_token <> tasks.fencing_token
                OR leases.claimed_at IS DISTINCT FROM tasks.started_at
                OR (leases.retry_count, leases.max_retries, leases.loss_count)
                    <> (tasks.retry_count, tasks.max_retries, tasks.loss_count)
                OR leases.cancel_requested_at IS DISTINCT FROM tasks.cancel_requested_at""",
    ),
    Invariant(
        "lease_worker_known",
        "the worker of a lease exists and is its task's assigned worker",
        "the lease cannot be renewed or recovered: cancel the task, then delete its lease",
        """SELECT task_id FROM leases LEFT JOIN workers ON workers.id = worker_id
            LEFT JOIN tasks ON tasks.id = task_id
            WHERE workers.id IS NULL OR tasks.assigned_worker_id IS DISTINCT FROM worker_id""",
    ),
    Invariant(
        "pause_in_force",
        "of a paused job no task is waiting, ready or in a limit's line, and of no other job is one"
        " held as paused",
        "pause the job again, or resume it: each puts its tasks where they belong",
        """SELECT task_id FROM waiting JOIN jobs ON jobs.id = job_id WHERE paused_at IS NOT NULL
            UNION ALL SELECT task_id FROM ready JOIN jobs ON jobs.id = job_id
                WHERE paused_at IS NOT NULL
            UNION ALL SELECT task_id FROM blocked LEFT JOIN jobs ON jobs.id = job_id
                WHERE reason = 'paused' AND (paused_at IS NULL OR key <> job_id::text)
                    OR reason = 'limit' AND paused_at IS NOT NULL""",
    ),
    Invariant(
        "limits_counted",
        "each queued or running task whose concurrency key has a limit has a permit that says so",
        "give the key its limit again: that counts anew",
        """SELECT tasks.id FROM narrow JOIN tasks ON tasks.id = task_id
            LEFT JOIN permits ON permits.task_id = tasks.id AND permits.key = concurrency_key
            WHERE narrow.status <> 'pending' AND concurrency_key <> '' AND permits.key IS NULL
                AND EXISTS (SELECT FROM limit_of(concurrency_key))""",
    ),
    Invariant(
        "limits_kept",
        "of what was promoted since a key has its limit, no more is queued or runs than it allows",
        KEEP,
        """SELECT max(tasks.id) FROM narrow JOIN tasks ON tasks.id = task_id
            JOIN permits USING (task_id) CROSS JOIN LATERAL limit_of(concurrency_key) limit_
            WHERE narrow.status <> 'pending' AND promoted_at > changed_at
            GROUP BY concurrency_key, max_running HAVING count(*) > max_running""",
    ),
    Invariant(
        "limits_line_up_their_own",
        "a task blocked by a limit is blocked by that of its own concurrency key, which has one",
        "give the key a limit and take that away: its tasks go where they belong",
        """SELECT blocked.task_id FROM blocked JOIN tasks ON tasks.id = task_id
            WHERE reason = 'limit' AND (blocked.key <> concurrency_key
                OR NOT EXISTS (SELECT FROM limit_of(concurrency_key)))""",
    ),
    Invariant(
        "dependencies_counted",
        "a task blocked by dependencies has as many that are not met as it counts, one or more",
        "set `unmet` to their number; the task may start when that is 0",
        """SELECT task_id FROM blocked WHERE (reason = 'dependencies') <> (unmet > 0)
            OR reason = 'dependencies' AND unmet <> (
                SELECT count(*) FROM dependencies edge
                WHERE edge.task_id = blocked.task_id AND NOT met)""",
    ),
    Invariant(
        "dependencies_told",
        "no task is blocked by one that has ended, unless its dependents are still to be told",
        "insert the ended task into `ended_parents`",
        """SELECT DISTINCT task_id FROM blocked JOIN dependencies USING (task_id)
            JOIN tasks parent ON parent.id = depends_on_id
            WHERE reason = 'dependencies' AND NOT met AND parent.final_status IS NOT NULL
                AND parent.id NOT IN (SELECT task_id FROM ended_parents)""",
    ),
    Invariant(
        "dependencies_awaited",
        "what may start, runs or is done has all its dependencies met",
        WRITER,
        """SELECT DISTINCT task_id FROM dependencies JOIN tasks ON tasks.id = task_id
            WHERE NOT met AND (status = 'done' OR final_status IS NULL AND NOT EXISTS (
                SELECT FROM blocked WHERE blocked.task_id = tasks.id
                    AND reason = 'dependencies'))""",
    ),
    Invariant(
        "dependents_known",
        "a task has dependents only if it is marked so",
        "set `has_dependents` of the task",
        """SELECT DISTINCT depends_on_id FROM dependencies JOIN tasks ON tasks.id = depends_on_id
            WHERE NOT has_dependents""",
    ),
    Invariant(
        "dependency_tasks_exist",
        "both tasks of a dependency exist",
        RESTORE,
        """SELECT depends_on_id FROM dependencies
            WHERE NOT EXISTS (SELECT FROM tasks WHERE tasks.id = depends_on_id)
            UNION SELECT task_id FROM dependencies
            WHERE NOT EXISTS (SELECT FROM tasks WHERE tasks.id = task_id)""",
    ),
    Invariant(
        "keys_distinct",
        "no two tasks of a job have the same key",
        WRITER,
        """SELECT max(id) FROM tasks WHERE key <> '' GROUP BY job_id, key HAVING count(*) > 1""",
    ),
    Invariant(
        "waiting_task_unassigned",
        "a pending or queued task has no assigned worker",
        WRITER,
        """SELECT id FROM tasks WHERE final_status IS NULL
            AND status <> 'in_progress' AND assigned_worker_id IS NOT NULL""",
    ),
    Invariant(
        "completed_iff_ended",
        "completed_at is set if and only if the task has ended",
        WRITER,
        "SELECT id FROM tasks WHERE (final_status IS NULL) <> (completed_at IS NULL)",
    ),
    Invariant(
        "retries_bounded",
        "no task was retried more often than max_retries",
        KEEP,
        "SELECT id FROM tasks WHERE retry_count NOT BETWEEN 0 AND max_retries",
    ),
    Invariant(
        "retry_rules_kept",
        "no task was tried again after a failure that its own rules exclude",
        KEEP,
        """SELECT DISTINCT tasks.id FROM attempts JOIN tasks ON tasks.id = task_id
            AND tasks.generation = attempts.generation
        CROSS JOIN LATERAL (SELECT CASE WHEN outcome = 'timed_out' THEN '"timeout"'
            WHEN signal > 0 THEN '"signal"' ELSE to_jsonb(coalesce(attempts.exit_code, 0)) END AS by
        ) ended
        WHERE retry IS NOT NULL AND outcome IN ('failed', 'timed_out')
            AND (final_status IS NULL OR tasks.fencing_token > attempts.fencing_token)
            AND (NOT retry->'retry_on' @> ended.by OR retry->'fail_on' @> ended.by)""",
    ),
    Invariant(
        "deadline_kept",
        "no attempt started after its task's deadline, and none is put off beyond it",
        WRITER,
        """SELECT tasks.id FROM tasks WHERE deadline_at IS NOT NULL AND (EXISTS (
            SELECT FROM attempts WHERE task_id = tasks.id
                AND attempts.generation = tasks.generation AND attempts.started_at >= deadline_at)
            OR EXISTS (SELECT FROM leases WHERE task_id = tasks.id
                AND claimed_at >= tasks.deadline_at)
            OR EXISTS (SELECT FROM deferred WHERE task_id = tasks.id AND due_at > deadline_at))""",
    ),
    Invariant(
        "attempts_in_sequence",
        "a task's attempts are numbered 1, 2, 3 ... in order of distinct fencing tokens and of"
        " generations",
        KEEP,
        """SELECT DISTINCT task_id FROM (
            SELECT task_id, number <> row_number() OVER token OR fencing_token
                = lag(fencing_token) OVER token OR generation < lag(generation) OVER token AS wrong
            FROM attempts WINDOW token AS (PARTITION BY task_id ORDER BY fencing_token)
        ) numbered WHERE wrong""",
    ),
    Invariant(
        "attempts_complete",
        "every attempt of a task but the one that runs is recorded, under no token or generation"
        " above the task's",
        "an end was not recorded, or recorded twice: keep the rows and report a bug",
        """SELECT tasks.id FROM tasks LEFT JOIN (
            SELECT task_id, count(*) AS n, max(fencing_token) AS token, max(generation) AS last
            FROM attempts GROUP BY task_id
        ) recorded ON task_id = tasks.id
        WHERE coalesce(n, 0) <> attempt - (status = 'in_progress')::int
            OR token > fencing_token - (status = 'in_progress')::int OR last > generation""",
    ),
    Invariant(
        "status_has_its_attempt",
        "a done task's last attempt is done, a failed one's failed, timed out or lost, unless it"
        " waited past its deadline; a cancelled one's is not done",
        KEEP,
        """SELECT tasks.id FROM tasks LEFT JOIN attempts ON attempts.task_id = tasks.id
            AND attempts.fencing_token = tasks.fencing_token
            AND attempts.generation = tasks.generation
        WHERE final_status IS NOT NULL AND NOT CASE final_status
            WHEN 'done' THEN coalesce(outcome = 'done', false)
            WHEN 'failed' THEN coalesce(outcome IN ('failed', 'timed_out', 'lost'), false)
                OR deadline_at <= completed_at AND coalesce(outcome <> 'done', true)
            ELSE coalesce(outcome <> 'done', true) END""",
    ),
    Invariant(
        "done_is_final",
        "nothing follows a done attempt, and its task is done",
        "the task ran again after it was done: keep the rows and report a bug",
        """SELECT DISTINCT tasks.id FROM attempts JOIN tasks ON tasks.id = task_id
            WHERE outcome = 'done'
                AND (status <> 'done' OR attempts.fencing_token <> tasks.fencing_token)""",
    ),
    Invariant(
        "attempt_ends_after_start",
        "no attempt ended before it started",
        "the database's clock was set back, or " + WRITER,
        "SELECT id FROM attempts WHERE ended_at < started_at",
        of="attempt",
    ),
    Invariant(
        "finished_job_ended",
        "no task of a finished job is unfinished",
        "set finished_at of these jobs to NULL; the scheduler settles them anew",
        """SELECT DISTINCT jobs.id FROM tasks JOIN jobs ON jobs.id = job_id
            WHERE final_status IS NULL AND finished_at IS NOT NULL""",
        of="job",
    ),
    Invariant(
        "task_job_exists",
        "the job of a task exists",
        RESTORE,
        "SELECT id FROM tasks WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = job_id)",
    ),
    Invariant(
        "task_lane_fits",
        "the lane of a task exists and has its queue, requirements and slots",
        RESTORE,
        """SELECT tasks.id FROM tasks LEFT JOIN lanes ON lanes.id = lane_id
            WHERE (lanes.queue, lanes.requires, lanes.slots)
                IS DISTINCT FROM (tasks.queue, tasks.requires, tasks.slots)""",
    ),
    Invariant(
        "attempt_task_exists",
        "the task of an attempt exists",
        RESTORE,
        "SELECT id FROM attempts WHERE NOT EXISTS (SELECT FROM tasks WHERE tasks.id = task_id)",
        of="attempt",
    ),
    # Workers are pruned retention_days after their last heartbeat, which may be an hour before
    # their last claim; tasks, that long after their job's end. What is older may have lost both.
    Invariant(
        "attempt_worker_exists",
        "the worker of an attempt exists, unless it was pruned",
        RESTORE,
        """SELECT id FROM attempts
            WHERE started_at > now() - make_interval(days => %(retention_days)s, hours => -1)
                AND NOT EXISTS (SELECT FROM workers WHERE workers.id = worker_id)""",
        of="attempt",
    ),
    Invariant(
        "log_task_exists",
        "the task of a log chunk exists, unless it was pruned",
        RESTORE,
        """SELECT DISTINCT task_id FROM log_chunks
            WHERE claimed_at > now() - make_interval(days => %(retention_days)s)
                AND NOT EXISTS (SELECT FROM tasks WHERE tasks.id = task_id)""",
    ),
    Invariant(
        "constraints_in_force",
        "the constraints that the models declare are there and valid",
        "run manage.py migrate; add and validate what is missing still",
        """SELECT name FROM unnest(%(constraints)s::text[]) AS name
            WHERE NOT EXISTS (
                SELECT FROM pg_constraint WHERE conname = name AND convalidated)""",
        of="constraint",
    ),
    Invariant(
        "firing_job_once",
        "no two firings name the same job",
        "DTS never writes this: keep the rows of this schedule and report a bug",
        """SELECT job_id FROM firings WHERE job_id IS NOT NULL
            GROUP BY job_id HAVING count(*) > 1""",
        of="job",
    ),
    Invariant(
        "deadlines_enforced",
        "no lease is long past its attempt's deadline",
        "start manage.py run_recovery",
        """SELECT task_id FROM leases
            WHERE deadline_at < now() - make_interval(secs => %(silent_seconds)s)""",
        warning=True,
    ),
    Invariant(
        "overdue_failed",
        "no task still waits long after its deadline",
        "start manage.py run_recovery",
        """SELECT id FROM tasks WHERE final_status IS NULL AND status <> 'in_progress'
            AND deadline_at < now() - make_interval(secs => %(silent_seconds)s)""",
        warning=True,
    ),
    Invariant(
        "silent_workers_recovered",
        "no lease is held by a worker long silent",
        "start manage.py run_recovery",
        """SELECT task_id FROM leases JOIN workers ON workers.id = worker_id
            WHERE greatest(claimed_at, last_heartbeat)
                < now() - make_interval(secs => %(silent_seconds)s)""",
        warning=True,
    ),
    Invariant(
        "queue_limits_kept",
        "no queue has more queued or running tasks than its max_running, unless that was lowered",
        "if nobody lowered it just now, keep the rows and report a bug",
        """SELECT queues.id FROM queues JOIN tasks ON tasks.queue = queues.name
            AND final_status IS NULL AND status <> 'pending'
            WHERE max_running IS NOT NULL GROUP BY queues.id HAVING count(*) > max_running""",
        of="queue",
        warning=True,
    ),
    Invariant(
        "schedules_fired",
        "no schedule is long past its next time",
        "start manage.py run_scheduler",
        """SELECT id FROM schedules
            WHERE next_run_at < now() - make_interval(secs => %(silent_seconds)s)""",
        of="schedule",
        warning=True,
    ),
)


@contextmanager
def snapshot() -> Iterator[None]:
    """A read-only transaction in which every look sees the same moment. Not within another."""
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET LOCAL enable_seqscan = on")  # it reads whole tables
        yield


def look(invariant: Invariant) -> Finding:
    """Counts the breaches of an invariant now, or at the snapshot's moment."""
    dts = conf()
    parameters: dict[str, Any] = {
        "retention_days": dts.retention_days,
        "silent_seconds": SILENT_LEASES * dts.lease_seconds,
        "constraints": declared_constraints(),
        "shown": SHOWN_IDS,
    }
    with connection.cursor() as cursor:
        cursor.execute(QUESTION.format(breaches=invariant.breaches), parameters)
        count, ids = cursor.fetchone()
    return Finding(invariant, count, ids)


def declared_constraints() -> list[str]:
    models = [model for name in APPS for model in apps.get_app_config(name).get_models()]
    return sorted(constraint.name for model in models for constraint in model._meta.constraints)
