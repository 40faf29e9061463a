"""`firing prepare SCHEDULES AT_ONCE MINUTES`: as many schedules, AT_ONCE of them due at each of the
next so many minutes, the rest hours later. Prints when the last are due (seconds since 1970).

`firing figures`: prints JSON, how late each firing was in ms, and how many were made twice.
"""

import json
import sys
from datetime import timedelta

import django

django.setup()

from django.db.models import Count  # noqa: E402 - needs django.setup() first
from django.utils import timezone  # noqa: E402 - the same

from jobs.models import Job, Lane, Queue  # noqa: E402 - the same
from scheduling import plan  # noqa: E402 - the same
from scheduling.models import Firing, Schedule  # noqa: E402 - the same

TEMPLATE = {"name": "{schedule} {time}", "tasks": [{"payload": {"cmd": "true"}}]}
READY = timedelta(seconds=10)


def prepare(schedules: int, at_once: int, minutes: int) -> None:
    now = timezone.now()
    first = (now + READY).replace(second=0, microsecond=0) + timedelta(minutes=1)
    made = []
    for n in range(schedules):
        soon = n < at_once * minutes
        at = first + (timedelta(minutes=n // at_once) if soon else timedelta(hours=6))
        made.append(Schedule(name=f"s{n}", cron=f"{at:%M %H} * * *", template=TEMPLATE))
    for schedule in made:
        schedule.next_run_at = plan.first_after(schedule, now)
    Schedule.objects.bulk_create(made, batch_size=1_000)
    Queue.objects.create(name="default")
    Lane.objects.create(queue="default", requires=[])  # as it is after the first job ever
    print((first + timedelta(minutes=minutes - 1)).timestamp())


def figures() -> None:
    firings = Firing.objects.values_list("scheduled_at", "fired_at")
    late = [(fired_at - at).total_seconds() * 1000 for at, fired_at in firings if fired_at]
    twice = Job.objects.values("name").annotate(jobs=Count("pk")).filter(jobs__gt=1).count()
    print(json.dumps({"late_ms": late, "jobs": Job.objects.count(), "twice": twice}))


if sys.argv[1] == "prepare":
    prepare(*map(int, sys.argv[2:]))
else:
    figures()
