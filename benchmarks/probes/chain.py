"""`chain SHAPE N`: submits N no-op tasks that depend on each other; prints, as JSON, how many end
a second from the submit on. SHAPE is chain or fan."""

import json
import sys
import time

import django

django.setup()

from django.db import connection  # noqa: E402 - needs django.setup() first

from jobs import queue  # noqa: E402 - needs django.setup() first
from jobs.specs import JobSpec, TaskSpec  # noqa: E402 - needs django.setup() first
from workers.models import Worker  # noqa: E402 - needs django.setup() first

LONGEST_SECONDS = 300.0


def task(key: str, *parents: str) -> TaskSpec:
    payload = {"function": "os.getpid"}
    return TaskSpec(payload=payload, kind="python", key=key, depends_on=parents)


def tasks(shape: str, n: int) -> list[TaskSpec]:
    if shape == "chain":
        return [task("0"), *(task(f"{k}", f"{k - 1}") for k in range(1, n))]
    wide = [f"{k}" for k in range(1, n - 1)]
    return [task("0"), *(task(key, "0") for key in wide), task("last", *wide)]


def wait(condition: str) -> None:
    give_up_at = time.monotonic() + LONGEST_SECONDS
    with connection.cursor() as cursor:
        while True:
            cursor.execute(condition)
            if cursor.fetchone()[0]:
                return
            if time.monotonic() > give_up_at:
                sys.exit(f"not done in {LONGEST_SECONDS:g} s")
            time.sleep(0.01)


shape, count = sys.argv[1], int(sys.argv[2])
while Worker.objects.count() < 2:
    time.sleep(0.05)
submitted = tasks(shape, count)
began_at = time.monotonic()
queue.submit(JobSpec(name=shape, tasks=submitted))
wait("SELECT NOT EXISTS (SELECT FROM tasks WHERE final_status IS NULL)")
took = time.monotonic() - began_at
with connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM tasks WHERE final_status = 'done'")
    if cursor.fetchone()[0] != count:
        sys.exit("not all of them are done")
print(json.dumps({"a second": count / took}))
