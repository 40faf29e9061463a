"""Submit: jobs over HTTP against a bare INSERT of the same rows."""

import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.bench import Bench, Figures, values
from benchmarks.peers import DTS
from benchmarks.processes import GUNICORN
from benchmarks.suite.http import free_port
from benchmarks.tables import Section, Table, middle, ratio

# Tasks a request: how many requests.
SIZES = {1: 2_000, 100: 300, 10_000: 10}
QUICK_SIZES = {1: 200, 100: 30, 10_000: 2}
BARE, HTTP = "bare INSERT", "POST /jobs"
METHOD = (
    "gunicorn as DTS configures it, asked over a connection that is kept alive, with a token, for "
    "jobs of so many short commands, each as soon as the last is answered. The limit: psycopg in "
    "this process inserts the same rows into the same tables (one of jobs; those of tasks and "
    "waiting by one statement from an array), one commit a request, without HTTP, JSON, checks, "
    "scores or a wake-up."
)
LANE = "INSERT INTO lanes (queue, requires) VALUES ('default', '{}') RETURNING id"
INSERT = """
WITH job AS (
    INSERT INTO jobs (name, queue, labels, submitted_by, created_at)
    VALUES ('bare', 'default', '{}', 'bench', now()) RETURNING id
), stored AS (
    INSERT INTO tasks (
        job_id, queue, created_at, updated_at, name, kind, payload, priority, requires,
        max_retries, lane_id, score, status, generation, attempt, fencing_token, retry_count,
        loss_count, result_text
    )
    SELECT job.id, 'default', now(), now(), '', 'shell', task.payload::jsonb, 0, '{}', 0, %s,
        0, 'pending', 1, 0, 0, 0, 0, ''
    FROM job, unnest(%s::text[]) AS task (payload)
    RETURNING id, lane_id, score, job_id
)
INSERT INTO waiting (task_id, lane_id, score, job_id) SELECT id, lane_id, score, job_id FROM stored
"""


def run(bench: Bench) -> Section:
    sizes = QUICK_SIZES if bench.quick else SIZES
    table = Table(["tasks a request", f"{BARE} tasks/s", f"{HTTP} tasks/s", "requests/s", "of it"])
    for tasks, requests in sizes.items():
        requests = min(requests, max(1, (bench.most_tasks or tasks * requests) // tasks))
        measures = {
            BARE: partial(bare, bench, tasks, requests),
            HTTP: partial(http, bench, tasks, requests),
        }
        rounds = bench.in_turns(f"submit {tasks}", measures)
        limit, found = (values(rounds, name, "tasks") for name in (BARE, HTTP))
        rates = middle(values(rounds, HTTP, "requests"))
        table.rows.append([f"{tasks:,}", middle(limit), middle(found), rates, ratio(found, limit)])
    return Section("submit", "Submits over HTTP", METHOD, [table])


def rate(tasks: int, requests: int, seconds: float) -> Figures:
    return {"tasks": tasks * requests / seconds, "requests": requests / seconds}


def bare(bench: Bench, tasks: int, requests: int) -> Figures:
    with bench.database.connect(bench.fresh(DTS)) as connection:
        lane = connection.execute(LANE).fetchone()
        payloads = [json.dumps({"cmd": "true"})] * tasks
        given = [lane and lane[0], payloads]
        connection.execute(INSERT, given, prepare=True)
        began_at = time.perf_counter()
        for _ in range(requests):
            connection.execute(INSERT, given, prepare=True)
        return rate(tasks, requests, time.perf_counter() - began_at)


def http(bench: Bench, tasks: int, requests: int) -> Figures:
    name, port = bench.fresh(DTS), free_port()
    environment: Mapping[str, str] = bench.django(name) | {"ORCH_PORT": str(port)}
    python = [sys.executable, "-m"]
    make_token = [*python, "django", "token", "create", "submit", "--scopes", "submit"]
    token = bench.processes.run(make_token, environment).strip()
    with bench.processes.running([GUNICORN], environment):
        given = map(str, (port, token, tasks, requests))
        probe = [*python, "benchmarks.probes.submit_rate", *given]
        found: dict[str, Any] = json.loads(bench.processes.run(probe, environment))
    return rate(tasks, requests, found["seconds"])
