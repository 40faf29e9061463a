"""What people do with schedules. Each is to be called within the transaction that records it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from dtsproject.conf import conf
from dtsproject.errors import Refusal
from jobs.queue import WrongState
from scheduling import plan
from scheduling.firing import submit
from scheduling.models import Firing, Outcome, Schedule

# What decides when it fires.
TIMING = {"cron", "time_zone", "starts_at", "ends_at", "jitter_seconds"}
PRUNE_BATCH = 10_000


class NameTaken(Refusal):
    code, title = "schedule_exists", "There is such a schedule"


class NoSuchSchedule(Refusal):
    status, code, title = 404, "not_found", "Not found"


def held(pk: int) -> Any:
    """The schedule, its row locked until the transaction's end, and the database's time, `read_at`.

    Raises NoSuchSchedule.
    """
    rows: Any = Schedule.objects.select_for_update()
    found = rows.annotate(read_at=Now()).filter(pk=pk).first()
    if found is None:
        raise NoSuchSchedule(f"There is no schedule {pk}.")
    return found


def create(values: Mapping[str, Any], *, created_by: str) -> Schedule:
    """A schedule of these values, valid already. Raises NameTaken."""
    made = Schedule(**values, created_by=created_by)
    _store(made)
    made = held(made.pk)
    made.next_run_at = plan.first_after(made, made.read_at)
    made.save(update_fields=["next_run_at"])
    return made


def change(pk: int, values: Mapping[str, Any]) -> Schedule:
    """Gives the schedule these values; times that it missed until now are let go if they change
    when it fires. Raises NoSuchSchedule and NameTaken."""
    schedule = held(pk)
    for name, value in values.items():
        setattr(schedule, name, value)
    if TIMING & values.keys() and not schedule.paused_at:
        schedule.next_run_at = plan.first_after(schedule, schedule.read_at)
    schedule.updated_at = schedule.read_at
    _store(schedule)
    return schedule


def pause(pk: int, reason: str = "") -> Schedule:
    """Nothing of it is made until it is resumed. Raises NoSuchSchedule and WrongState."""
    schedule = held(pk)
    if schedule.paused_at:
        raise WrongState(f"Schedule {schedule.name} is paused already.", state="paused")
    schedule.paused_at, schedule.paused_reason, schedule.next_run_at = (
        schedule.read_at,
        reason,
        None,
    )
    schedule.save(update_fields=["paused_at", "paused_reason", "next_run_at"])
    return schedule


def resume(pk: int) -> Schedule:
    """It goes on with its next time: those that passed meanwhile were not missed but paused.

    Raises NoSuchSchedule and WrongState.
    """
    schedule = held(pk)
    if not schedule.paused_at:
        raise WrongState(f"Schedule {schedule.name} is not paused.", state=schedule.state)
    schedule.paused_at, schedule.paused_reason = None, ""
    schedule.next_run_at = plan.first_after(schedule, schedule.read_at)
    schedule.save(update_fields=["paused_at", "paused_reason", "next_run_at"])
    return schedule


def fire(pk: int) -> Firing:
    """Submits its job now, paused or not, whatever runs of it; its times stay as they are.

    Raises NoSuchSchedule, Overloaded, TooManyLanes and BadTemplate.
    """
    schedule = held(pk)
    at = schedule.read_at
    firing = Firing(schedule=schedule, scheduled_at=at, fired_at=at, outcome=Outcome.FIRED)
    (job,) = submit([firing])
    firing.job_id = job.pk
    firing.save()
    Schedule.objects.filter(pk=pk).update(last_job_id=job.pk, last_run_at=at)
    return firing


def _store(schedule: Schedule) -> None:
    try:
        with transaction.atomic():
            schedule.save()
    except IntegrityError:
        raise NameTaken(f"There is a schedule {schedule.name} already.") from None


def prune() -> int:
    """Deletes up to a batch of firings made longer than retention_days ago; returns how many."""
    age = Now() - timedelta(days=conf().retention_days)
    old = Firing.objects.filter(fired_at__lt=age).order_by("fired_at").values_list("pk", flat=True)
    return Firing.objects.filter(pk__in=list(old[:PRUNE_BATCH])).delete()[0]
