"""Schedules under real schedulers, two at once: each firing once, on time, whoever is killed."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from jobs.models import Job
from scheduling import plan
from scheduling.models import Firing, Schedule
from tests.helpers import scheduled, wait_until

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)
# On a busy machine; what a quiet one takes, `python -m benchmarks firing` tells.
LATE = timedelta(seconds=3)


def test_an_hours_firings_are_made_once_though_a_scheduler_is_killed(fleet):
    first = (timezone.now().minute + 2) % 5
    cron = f"{','.join(str(first + five) for five in range(0, 60, 5))} * * * *"
    for n in range(25):
        scheduled(cron, name=f"s{n}", catch_up="all")
    doomed, _ = fleet.scheduler(), fleet.scheduler()
    Schedule.objects.update(next_run_at=F("next_run_at") - HOUR)
    wait_until(lambda: Firing.objects.count() > 40)
    doomed.kill()
    wait_until(lambda: not Schedule.objects.filter(next_run_at__lt=timezone.now()).exists(), 60)

    firings = list(Firing.objects.values_list("schedule_id", "scheduled_at", "outcome", "job_id"))
    assert len(firings) == len({firing[:2] for firing in firings}) == 25 * 12
    assert {outcome for *_, outcome, _ in firings} == {"fired"}
    jobs = set(Job.objects.values_list("pk", flat=True))
    assert jobs == {job_id for *_, job_id in firings}
    assert len(jobs) == 25 * 12


def test_firings_are_made_on_time_and_once(fleet):
    """Their jitter spreads them over the minute, so that some are due in these seconds."""
    made = {}
    for n in range(150):
        schedule = scheduled(name=f"s{n}", jitter_seconds=60)
        made[schedule.pk] = schedule
    fleet.scheduler()
    fleet.scheduler()
    wait_until(Firing.objects.exists, 60)
    running_at = timezone.now()
    wait_until(lambda: Firing.objects.filter(fired_at__gt=running_at).count() >= 10, 60)

    for firing in Firing.objects.all():
        due_at = firing.scheduled_at + plan.jitter(made[firing.schedule_id], firing.scheduled_at)
        assert timedelta() <= firing.fired_at - due_at
        assert firing.fired_at - max(due_at, running_at) < LATE
    assert Job.objects.count() == Firing.objects.count()
