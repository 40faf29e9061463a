"""`queries ROWS`: fills an empty database of DTS and times requests, with indexes and without.

Prints JSON: {"with": {request: [its ms, of these in SQL]}, "without": ...}.
"""

import json
import statistics
import sys
import time
from typing import Any

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402 - needs django.setup() first
from django.db import connection, transaction  # noqa: E402 - needs django.setup() first
from django.test import Client  # noqa: E402 - needs django.setup() first

from jobs.models import Token  # noqa: E402 - needs django.setup() first
from scheduling import figures  # noqa: E402 - needs django.setup() first

TIMES = 5
A_JOB = 100
FILL = [
    "INSERT INTO lanes (queue, requires) VALUES ('default', '{}')",
    """INSERT INTO workers (name, boot_id, machine_id, slots, state, capabilities, queues, version,
        host) VALUES ('history', gen_random_uuid(), '', 1, 'gone', '{}', '{}', '', '')""",
    """INSERT INTO jobs (name, queue, labels, submitted_by)
        SELECT 'job ' || n %% 50, 'default', '{}', 'bench' FROM generate_series(1, %(jobs)s) n""",
    """INSERT INTO tasks (job_id, name, queue, kind, payload, priority, requires, max_retries,
        lane_id, score, status, generation, attempt, fencing_token, retry_count, loss_count,
        result_text, started_at, completed_at, assigned_worker_id, created_at)
    SELECT 1 + (n - 1) / %(a_job)s, 'task ' || n %% 500, 'default', 'shell', '{"cmd": "true"}',
        n %% 100, '{}', 0, 1, n, status, 1, ended::int, ended::int, 0, 0, '',
        CASE WHEN ended THEN now() END, CASE WHEN ended THEN now() END, CASE WHEN ended THEN 1 END,
        now() - (%(tasks)s - n) * interval '1 second'
    FROM generate_series(1, %(tasks)s) n, LATERAL (SELECT CASE
        WHEN n %% 100 = 0 THEN 'pending' WHEN n %% 100 = 1 THEN 'cancelled'
        WHEN n %% 100 < 5 THEN 'failed' ELSE 'done' END AS status
    ) a, LATERAL (SELECT status <> 'pending' AS ended) b""",
    """INSERT INTO waiting (task_id, lane_id, score, job_id)
        SELECT id, lane_id, score, job_id FROM tasks WHERE status = 'pending'""",
    """INSERT INTO attempts (task_id, generation, number, fencing_token, worker_id, started_at,
        ended_at, outcome, error, output)
    SELECT id, 1, 1, 1, 1, now(), now(), status, '', '' FROM tasks
    WHERE status <> 'pending'""",
]
TABLES = ["tasks", "jobs", "attempts", "waiting", "ready", "leases", "deferred", "blocked"]
INDEXES = """
    SELECT index.indexrelid::regclass::text, held.conname, index.indrelid::regclass::text
    FROM pg_index index LEFT JOIN pg_constraint held ON held.conindid = index.indexrelid
        AND held.contype = 'u'
    WHERE index.indrelid = ANY (%s::regclass[]) AND NOT index.indisprimary
"""


def fill(tasks: int) -> None:
    jobs = -(-tasks // A_JOB)
    with connection.cursor() as cursor:
        for statement in FILL:
            given = {"tasks": tasks, "jobs": jobs, "a_job": A_JOB}
            cursor.execute(statement, given if "%(" in statement else None)
        cursor.execute("VACUUM ANALYZE")


def requests(tasks: int) -> dict[str, str]:
    job, task = -(-tasks // A_JOB) // 2 + 1, tasks // 2 or 1
    return {
        "API tasks, newest": "/api/v1/tasks",
        "API tasks?status=failed": "/api/v1/tasks?status=failed",
        "API tasks?status=pending": "/api/v1/tasks?status=pending",
        "API tasks?job=": f"/api/v1/tasks?job={job}",
        "API tasks?job=&status=failed": f"/api/v1/tasks?job={job}&status=failed",
        "API tasks?status=cancelled&priority_min=": "/api/v1/tasks?status=cancelled&priority_min=1",
        "API jobs, newest": "/api/v1/jobs",
        "API job": f"/api/v1/jobs/{job}",
        "API task's attempts": f"/api/v1/tasks/{task}/attempts",
        "admin overview": "/admin/",
        "admin task list": "/admin/jobs/task/",
        "admin failed tasks": "/admin/jobs/task/?status=failed",
        "admin job list": "/admin/jobs/job/",
        "admin job page": f"/admin/jobs/job/{job}/change/",
        "admin task page": f"/admin/jobs/task/{task}/change/",
    }


def client() -> Client:
    """One that is a member of staff, and holds a token for the API."""
    _, token = Token.issue("bench", ["read"])
    made = Client(SERVER_NAME="localhost", headers={"authorization": f"Bearer {token}"})
    made.force_login(User.objects.create_superuser("bench"))
    return made


class Stopwatch:
    """Wraps Django's execution of a statement; `ms` is the time spent in them."""

    ms = 0.0

    def __call__(self, execute: Any, *arguments: Any) -> Any:
        began_at = time.perf_counter()
        try:
            return execute(*arguments)
        finally:
            self.ms += 1000 * (time.perf_counter() - began_at)


def timed(asker: Client, url: str) -> list[float]:
    """Milliseconds of the request and of its SQL: medians of TIMES, after one uncounted."""
    found = []
    for _ in range(TIMES + 1):
        began_at, stopwatch = time.perf_counter(), Stopwatch()
        with connection.execute_wrapper(stopwatch):
            response = asker.get(url)
        found.append((1000 * (time.perf_counter() - began_at), stopwatch.ms))
        if response.status_code != 200:
            sys.exit(f"{url} answered {response.status_code}: {response.content[:300]!r}")
    return [statistics.median(values) for values in zip(*found[1:], strict=True)]


def drop_indexes() -> None:
    with connection.cursor() as cursor:
        cursor.execute(INDEXES, [TABLES])
        for index, constraint, table in cursor.fetchall():
            if constraint:
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
            else:
                cursor.execute(f"DROP INDEX {index}")


def main(tasks: int) -> None:
    fill(tasks)
    asker, urls = client(), requests(tasks)
    figures.CACHED_SECONDS = 0  # the overview's numbers are to be taken each time
    with transaction.atomic():
        found = {"with": {name: timed(asker, url) for name, url in urls.items()}}
        drop_indexes()
        found["without"] = {name: timed(asker, url) for name, url in urls.items()}
        transaction.set_rollback(True)
    print(json.dumps(found))


main(int(sys.argv[1]))
