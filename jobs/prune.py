"""Deletes old history, in bounded batches: finished jobs with all of theirs, idempotency keys,
buckets of rates."""

from django.db import connection

from dtsproject.conf import conf
from jobs.models.limit import MOST_RATE_SECONDS

# Of jobs, which may have 100,000 tasks each; one statement must be done within its time limit.
BATCH = 20
KEYS_BATCH = 10_000

# No database constraint cascades, so attempts are deleted by name, in one statement with the
# tasks they belong to. A job being retried has finished_at NULL again and is not picked.
PRUNE = """
WITH old AS MATERIALIZED (
    SELECT id FROM jobs WHERE finished_at < now() - make_interval(days => %s)
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
), old_tasks AS (
    DELETE FROM tasks USING old WHERE tasks.job_id = old.id
    RETURNING tasks.id, dependency_count, has_dependents
), old_dependencies AS (
    DELETE FROM dependencies USING old_tasks
    WHERE old_tasks.dependency_count > 0 AND dependencies.task_id = old_tasks.id
), old_dependents AS (
    DELETE FROM dependencies USING old_tasks
    WHERE old_tasks.has_dependents AND dependencies.depends_on_id = old_tasks.id
), old_attempts AS (
    DELETE FROM attempts USING old_tasks WHERE attempts.task_id = old_tasks.id
)
SELECT id FROM old
"""


def prune() -> int:
    """Deletes up to a batch of jobs finished longer than retention_days ago; returns how many.

    The jobs' own rows go last, in a statement of their own, which sees that no task is left.
    """
    age = conf().retention_days
    with connection.cursor() as cursor:
        cursor.execute(PRUNE, [age, BATCH])
        found = [job_id for (job_id,) in cursor.fetchall()]
        cursor.execute(
            "WITH gone AS (DELETE FROM jobs WHERE id = ANY(%s) AND NOT EXISTS"
            " (SELECT FROM tasks WHERE tasks.job_id = jobs.id) RETURNING id)"
            " DELETE FROM unique_keys USING gone WHERE job_id = gone.id",
            [found],
        )
    return len(found)


def prune_keys() -> int:
    """Forgets up to a batch of idempotency keys older than idempotency_hours; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency_keys"
            " WHERE created_at < now() - make_interval(hours => %s) ORDER BY created_at LIMIT %s))",
            [conf().idempotency_hours, KEYS_BATCH],
        )
        return cursor.rowcount


def prune_buckets() -> int:
    """Forgets what keys had left of their rates, once that must be all again; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM buckets WHERE filled_at < now() - make_interval(secs => %s)",
            [MOST_RATE_SECONDS],
        )
        return cursor.rowcount
