"""`promote plain|backlog|limits TASKS ROUNDS`: fills the queue, then promotes ROUNDS batches by the
scheduler's own round. What was promoted is claimed and done before the next, which is not timed.

plain: TASKS wait, and no more. backlog: as many again are not due, or blocked. limits: so, and each
task has one of a thousand concurrency keys, each with a limit. Prints JSON.
"""

import json
import sys
import time
import uuid

import django

django.setup()

from django.db import connection  # noqa: E402 - needs django.setup() first

from jobs import queue  # noqa: E402 - the same
from jobs.models import Lane, Queue, Ready  # noqa: E402 - the same
from jobs.specs import Ending  # noqa: E402 - the same
from scheduling.scheduler import Scheduler  # noqa: E402 - the same
from workers import registry  # noqa: E402 - the same

SLOTS = 500
KEYS, AT_ONCE = 1_000, 2
A_JOB = 1_000
# Tasks of the same score go by id; the keys are scattered by a prime.
FILL = """
INSERT INTO jobs (id, name, queue, labels, submitted_by)
    SELECT n, 'bench', 'default', '{{}}', '' FROM generate_series(0, {tasks} / {a_job}) n;
INSERT INTO tasks (id, job_id, name, queue, kind, payload, priority, requires, max_retries, lane_id,
    score, status, generation, attempt, fencing_token, retry_count, loss_count, result_text,
    concurrency_key)
    SELECT n, n / {a_job}, '', 'default', 'shell', '{{"cmd": "true"}}', 0, '{{}}', 0, {lane}, n,
        'pending', 1, 0, 0, 0, 0, '', {key} FROM generate_series(1, {tasks}) n;
INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT n, {lane}, n, n / {a_job} FROM generate_series(1, {waiting}) n;
INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT n, {lane}, now() + interval '1 day', n, n / {a_job}
    FROM generate_series({waiting} + 1, {tasks}, 2) n;
INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id, unmet)
    SELECT n, {lane}, 'dependencies', '', n, n / {a_job}, 1
    FROM generate_series({waiting} + 2, {tasks}, 2) n;
"""
KEY = f"'key' || (hashint8(n) & 2147483647) % {KEYS}"


def fill(shape: str, tasks: int) -> None:
    Queue.objects.create(name="default")
    lane = Lane.objects.create(queue="default", requires=[]).pk
    limited = shape == "limits"
    if limited:
        for number in range(KEYS):
            queue.limit_key(f"key{number}", {"max_running": AT_ONCE})
    waiting = tasks if shape == "plain" else tasks // 2
    values = {"tasks": tasks, "waiting": waiting, "lane": lane, "a_job": A_JOB}
    with connection.cursor() as cursor:
        cursor.execute(FILL.format(**values, key=KEY if limited else "''"))
        cursor.execute("VACUUM ANALYZE")


def measure(rounds: int) -> dict[str, float]:
    """Tasks promoted a second, and how many were in a line at the end."""
    boot_id = uuid.uuid4()
    worker_id = registry.register(
        registry.Registration(name="bench", boot_id=boot_id, machine_id="bench", slots=SLOTS)
    ).pk
    scheduler, promoted, seconds = Scheduler(), 0, 0.0
    for number in range(-2, rounds):  # two to warm up
        began_at = time.perf_counter()
        found = scheduler.promote()
        if number >= 0:
            promoted, seconds = promoted + found, seconds + time.perf_counter() - began_at
        while Ready.objects.exists():
            claimed = queue.claim(worker_id=worker_id, boot_id=boot_id, limit=1_000)
            queue.report([Ending(task.task_id, task.fencing_token) for task in claimed])
        registry.heartbeat(worker_id, boot_id, {})
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM blocked WHERE reason = 'limit'")
        lined = cursor.fetchone()[0]
    return {"a second": promoted / seconds, "in a line": lined}


fill(sys.argv[1], int(sys.argv[2]))
print(json.dumps(measure(int(sys.argv[3]))))
