"""The policy benchmark's client: `policy submit N SLOTS`, then `policy figures` as JSON."""

import json
import random
import sys
import time

import django

django.setup()

from django.db import connection  # noqa: E402 - needs django.setup() first

from jobs import queue  # noqa: E402 - needs django.setup() first
from jobs.specs import JobSpec, TaskSpec  # noqa: E402 - needs django.setup() first

SHORT = TaskSpec(name="short", payload={"cmd": "sleep 0.05"}, priority=90)
LONG = TaskSpec(name="long", payload={"cmd": "sleep 0.5"}, priority=10)
SECONDS = {SHORT.name: 0.05, LONG.name: 0.5}
SEED = 7
JOBS = 10
# They arrive in half the time in which they can be run.
OVERLOAD = 2.0
FIGURES = """
    SELECT 'mean', extract(epoch FROM avg(completed_at - created_at))::float8
    FROM tasks WHERE final_status = 'done'
    UNION ALL
    SELECT name, extract(epoch FROM avg(completed_at - created_at))::float8
    FROM tasks WHERE final_status = 'done' GROUP BY name
"""


def workload(n: int) -> list[TaskSpec]:
    """`n` tasks, seven in ten short, in an order that is the same each time."""
    tasks = [SHORT] * (n * 7 // 10)
    tasks += [LONG] * (n - len(tasks))
    random.Random(SEED).shuffle(tasks)  # noqa: S311 - no secret
    return tasks


def submit(n: int, slots: int) -> None:
    began_at, tasks = time.monotonic(), workload(n)
    every_seconds = sum(SECONDS[task.name] for task in tasks) / slots / OVERLOAD / JOBS
    for number in range(JOBS):
        time.sleep(max(0.0, began_at + number * every_seconds - time.monotonic()))
        queue.submit(JobSpec(name="mixed", tasks=tasks[number::JOBS]))


def figures() -> dict[str, float]:
    with connection.cursor() as cursor:
        cursor.execute(FIGURES)
        return dict(cursor.fetchall())


if sys.argv[1] == "submit":
    submit(int(sys.argv[2]), int(sys.argv[3]))
else:
    print(json.dumps(figures()))
