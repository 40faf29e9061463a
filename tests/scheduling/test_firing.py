"""Firings: each once, by overlap and catch-up, in one transaction with the job."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dtsproject.postgresql.base import Connection
from jobs import queue
from jobs.backlog import Backlog, Overloaded
from jobs.models import Job, Task
from scheduling import firing, schedules
from scheduling.firer import Firer
from scheduling.models import Firing, Schedule
from scheduling.scheduler import Scheduler
from tests.helpers import register, scheduled, submit

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def every_ten_minutes() -> str:
    """Far from now at both ends, so that nothing is due in between."""
    first = (timezone.now().minute + 5) % 10
    return f"{','.join(str(first + ten) for ten in range(0, 60, 10))} * * * *"


def make_all() -> None:
    while firing.make_due():
        pass


def made() -> list[str]:
    return list(Firing.objects.order_by("scheduled_at").values_list("outcome", flat=True))


def end_jobs() -> None:
    queue.cancel(Task.objects.live().values_list("pk", flat=True))


@pytest.mark.parametrize(
    ("catch_up", "overlap", "outcomes"),
    [
        ("none", "allow", []),
        ("none", "skip", []),
        ("none", "queue", []),
        ("one", "allow", ["fired"]),
        ("one", "skip", ["fired"]),
        ("one", "queue", ["fired"]),
        ("all", "allow", ["fired"] * 6),
        ("all", "skip", ["fired"] + ["skipped_overlap"] * 5),
        ("all", "queue", ["fired"] + ["waiting"] * 5),
    ],
)
def test_an_hour_without_schedulers(catch_up, overlap, outcomes):
    """Six times of a schedule were missed; the job of the first made runs on."""
    schedule = scheduled(every_ten_minutes(), back=HOUR, catch_up=catch_up, overlap=overlap)
    missed = [schedule.next_run_at + timedelta(minutes=10 * n) for n in range(6)]

    make_all()

    assert made() == outcomes
    at = list(Firing.objects.order_by("scheduled_at").values_list("scheduled_at", flat=True))
    assert at == (missed if catch_up == "all" else missed[-1:] if outcomes else [])
    assert Job.objects.count() == outcomes.count("fired")
    schedule.refresh_from_db()
    assert schedule.next_run_at == missed[0] + HOUR
    assert schedule.paused_at is None


def test_waiting_firings_are_made_in_order_as_jobs_end():
    scheduled(every_ten_minutes(), back=HOUR, catch_up="all", overlap="queue")
    make_all()
    assert firing.make_waiting() == 0

    for count in range(2, 7):
        end_jobs()
        assert firing.make_waiting() == 1
        assert firing.make_waiting() == 0
        assert made() == ["fired"] * count + ["waiting"] * (6 - count)

    jobs = Firing.objects.order_by("scheduled_at").values_list("job_id", flat=True)
    assert list(jobs) == sorted(jobs)


def test_a_firing_that_another_scheduler_made_meanwhile_is_not_followed_at_once(monkeypatch):
    """The rows were chosen by what was so before the other one let go of them."""
    scheduled(every_ten_minutes(), back=HOUR, catch_up="all", overlap="queue")
    make_all()
    before = Schedule.objects.annotate(read_at=Now())
    monkeypatch.setattr(firing, "_locked", lambda schedules: list(before))
    assert firing.make_waiting() == 0
    assert made() == ["fired"] + ["waiting"] * 5


def test_no_firing_passes_one_that_waits():
    """Its last job has ended, and the one before it has not been made yet."""
    schedule = scheduled(every_ten_minutes(), back=HOUR, catch_up="all", overlap="queue")
    assert firing.make_due() + firing.make_due() == 2
    end_jobs()
    make_all()
    assert made() == ["fired"] + ["waiting"] * 5

    schedule.refresh_from_db()
    Schedule.objects.update(
        catch_up_limit=5, next_run_at=schedule.next_run_at - timedelta(minutes=10)
    )
    Firing.objects.order_by("-scheduled_at")[0].delete()
    assert firing.make_due() == 1
    assert made()[-1] == "waiting"


def test_skip_goes_on_once_the_last_job_has_ended():
    scheduled(every_ten_minutes(), back=HOUR, catch_up="all", overlap="skip")
    for _ in range(3):
        firing.make_due()
    end_jobs()
    firing.make_due()
    assert made() == ["fired", "skipped_overlap", "skipped_overlap", "fired"]


def test_the_job_is_the_template_with_its_time():
    template = {
        "name": "report of {date}",
        "queue": "reports",
        "tasks": [
            {"payload": {"cmd": "echo {scheduled_at} ${date} {{date}}", "env": {"A": "{schedule}"}}}
        ],
    }
    schedule = scheduled(
        every_ten_minutes(), back=HOUR, time_zone="Asia/Kolkata", template=template
    )
    make_all()

    job, found = Job.objects.get(), Firing.objects.get()
    local = found.scheduled_at + timedelta(hours=5, minutes=30)
    assert job.name == f"report of {local:%Y-%m-%d}"
    assert (job.queue, job.labels) == ("reports", {"schedule": schedule.name})
    assert job.submitted_by == f"schedule {schedule.name}"
    assert job.tasks.get().payload == {
        "cmd": f"echo {local:%Y-%m-%dT%H:%M:%S}+05:30 ${{date}} {{date}}",
        "env": {"A": schedule.name},
    }
    schedule.refresh_from_db()
    assert found.job_id == job.pk == schedule.last_job_id
    assert schedule.last_run_at is not None


def test_a_time_made_before_is_not_made_again():
    scheduled(every_ten_minutes(), back=HOUR, catch_up="all")
    make_all()
    before = made()
    Schedule.objects.update(next_run_at=timezone.now() - HOUR)

    make_all()

    assert made() == before
    assert Job.objects.count() == len(before)


@pytest.mark.django_db(transaction=True)
def test_what_another_scheduler_holds_is_left_to_it():
    scheduled(every_ten_minutes(), back=HOUR)
    with Connection.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT FROM schedules FOR UPDATE")
        connection.cursor().execute("SET lock_timeout = '3s'")
        assert firing.make_due() == 0
    connection.cursor().execute("RESET lock_timeout")
    assert firing.make_due() == 1


@pytest.mark.django_db(transaction=True)
def test_a_firing_its_job_and_the_next_time_are_one_transaction(monkeypatch):
    schedule = scheduled(every_ten_minutes(), back=HOUR)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(firing, "_move", dies)
    with pytest.raises(KeyboardInterrupt):
        firing.make_due()

    assert not Job.objects.exists()
    assert not Firing.objects.exists()
    before = schedule.next_run_at
    schedule.refresh_from_db()
    assert schedule.next_run_at == before


# -- what cannot be made


def test_an_invalid_template_pauses_the_schedule_with_the_reason():
    scheduled(every_ten_minutes(), back=HOUR, catch_up="all")
    other = scheduled(every_ten_minutes(), name="other", back=HOUR)
    Schedule.objects.exclude(pk=other.pk).update(template={"name": "x", "tasks": [{"payload": {}}]})

    make_all()

    paused = Schedule.objects.exclude(pk=other.pk).get()
    assert paused.paused_reason == "#/template/tasks/0/payload/cmd: This field is required."
    assert (paused.state, paused.next_run_at) == ("paused", None)
    assert list(Firing.objects.filter(schedule=paused).values_list("outcome", flat=True)) == [
        "refused"
    ]
    assert Firing.objects.get(schedule=other).outcome == "fired"


@pytest.mark.parametrize(
    ("column", "said"),
    [("cron", "expression: give five fields"), ("time_zone", "There is no time zone 'gone'")],
)
def test_so_does_what_is_no_cron_or_zone_any_more(column, said):
    scheduled(every_ten_minutes(), back=HOUR)
    Schedule.objects.update(**{column: "gone"})
    assert firing.make_due() == 1
    assert Schedule.objects.get().paused_reason.startswith(said)


def test_so_does_a_limit_that_refuses_its_job(monkeypatch):
    monkeypatch.setattr("jobs.submission.MAX_LANES", 0)
    scheduled(every_ten_minutes(), back=HOUR)
    make_all()
    assert "There may be 0 combinations" in Schedule.objects.get().paused_reason
    assert not Job.objects.exists()


def test_overload_puts_off_and_pauses_nothing(settings, monkeypatch):
    settings.DTS = {**settings.DTS, "MAX_BACKLOG": 1}
    monkeypatch.setattr(firing, "backlog", Backlog())
    (first,) = submit("true")
    scheduled(every_ten_minutes(), back=HOUR)
    firer = Firer()

    with pytest.raises(Overloaded):
        firing.make_due()
    assert firer.tick() == 0
    assert firer.seconds_left() > 0.9
    assert (Schedule.objects.get().state, made()) == ("active", [])

    queue.cancel([first.pk])
    monkeypatch.setattr(firing, "backlog", Backlog())
    assert firing.make_due() == 1
    assert made() == ["fired"]


def test_old_firings_are_pruned_and_waiting_ones_are_not():
    scheduled(every_ten_minutes(), back=HOUR, catch_up="all", overlap="queue")
    make_all()
    Firing.objects.exclude(fired_at=None).update(fired_at=timezone.now() - timedelta(days=31))
    assert schedules.prune() == 1
    assert made() == ["waiting"] * 5


# -- the scheduler's round


def test_the_scheduler_fires_and_promotes_in_one_round():
    register()
    scheduled(every_ten_minutes(), back=HOUR)
    Scheduler().tick()
    assert Task.objects.get().status == "queued"


def test_nothing_due_costs_one_statement_an_interval():
    scheduled(every_ten_minutes())
    firer = Firer()
    with CaptureQueriesContext(connection) as asked:
        for _ in range(5):
            assert firer.tick() == 0
    assert len(asked) == 1
    assert 0 < firer.seconds_left() <= 0.25


def test_the_scheduler_sleeps_no_longer_than_until_the_next_time():
    scheduler = Scheduler()
    scheduler.firer._look_at = 0.0
    assert scheduler.pause() == 0.0
    scheduler.firer.tick()
    assert 0 < scheduler.pause() <= 0.25


def test_what_is_asked_is_read_by_index():
    rows = 20_000
    scheduled(every_ten_minutes())
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO schedules (name, cron, time_zone, template, overlap, catch_up,"
            " catch_up_limit, jitter_seconds, created_by, paused_reason, next_run_at)"
            " SELECT 's' || n, '0 0 * * *', 'UTC', '{}', 'queue', 'one', 1, 0, '', '',"
            " now() + n * interval '1 h' FROM generate_series(1, %s) n",
            [rows],
        )
        cursor.execute(
            "INSERT INTO firings (schedule_id, scheduled_at, outcome, fired_at)"
            " SELECT id, now(), 'skipped_overlap', now() FROM schedules"
        )
        cursor.execute("ANALYZE schedules, firings")
    with CaptureQueriesContext(connection) as asked:
        Firer().tick()
        firing.make_due()
        firing.make_waiting()
    selects = [query["sql"] for query in asked if query["sql"].startswith(("\nSELECT", "SELECT"))]
    assert len(selects) == 3
    for sql in selects:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql)
            plan = cursor.fetchone()[0][0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 40, sql
