import json
from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.backlog import Backlog
from jobs.models import AuditEvent, Job
from scheduling import firing
from scheduling.models import Firing, Schedule
from tests.api import Client, pointers, problem
from tests.helpers import scheduled, submit

pytestmark = pytest.mark.django_db
URL = "/api/v1/schedules"
TEMPLATE = {"name": "backup {date}", "tasks": [{"payload": {"cmd": "./backup {date}"}}]}
NIGHTLY = {
    "name": "nightly",
    "cron": "0 2 * * *",
    "time_zone": "Europe/Berlin",
    "template": TEMPLATE,
}


@pytest.fixture
def client():
    return Client("read", "submit", "operate", name="alice")


def patch(client, pk: int, **body):
    return client.generic("PATCH", f"{URL}/{pk}", json.dumps(body), content_type="application/json")


def recorded() -> list[tuple[str, str, str]]:
    return list(AuditEvent.objects.order_by("pk").values_list("actor", "action", "target"))


def test_a_schedule_is_made_shown_and_listed(client):
    answer = client.send(URL, NIGHTLY)
    found = answer.json()
    assert answer.status_code == 201, found
    assert answer["Location"] == f"{URL}/{found['id']}"
    defaults = {"overlap": "allow", "catch_up": "one", "catch_up_limit": 100, "jitter_seconds": 0}
    assert {**NIGHTLY, **defaults}.items() <= found.items()
    assert (found["state"], found["created_by"]) == ("active", "alice")
    assert "02:00" in found["words"]
    assert len(found["next_runs"]) == 5
    assert all("T02:00:00+0" in run for run in found["next_runs"])
    assert client.get(f"{URL}/{found['id']}").json() == found
    assert [row["name"] for row in client.get(URL).json()["results"]] == ["nightly"]
    assert recorded() == [("alice", "create", f"schedule {found['id']}")]


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"cron": "0 25 * * *"}, "#/cron", "hour: '25' is not valid"),
        ({"cron": "0 2 31 2 *"}, "#/cron", "day-of-month: '31'"),
        ({"cron": "1 1 */100 * MON#4"}, "#/cron", "No such time comes."),
        ({"time_zone": "Mars/Olympus"}, "#/time_zone", "no time zone 'Mars/Olympus'"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "#/ends_at", "before it ends"),
        (
            {"starts_at": "2090-01-02T00:00:00Z", "ends_at": "2090-01-01T00:00:00Z"},
            "#/ends_at",
            "ends before it starts",
        ),
        ({"starts_at": "2090-01-01T00:00:00"}, "#/starts_at", "offset from UTC"),
        ({"jitter_seconds": -1}, "#/jitter_seconds", "greater than or equal to 0"),
        ({"catch_up_limit": 0}, "#/catch_up_limit", "greater than or equal to 1"),
        ({"overlap": "kill"}, "#/overlap", "not a valid choice"),
        ({"catch_up": "some"}, "#/catch_up", "not a valid choice"),
        ({"name": "two words"}, "#/name", "Use letters"),
        ({"colour": "red"}, "#/colour", "no such field"),
        ({"template": {"name": "x"}}, "#/template/tasks", "required"),
        ({"template": {**TEMPLATE, "name": "{day}"}}, "#/template/name", "no parameter {day}"),
        (
            {"template": {"name": "x", "tasks": [{"payload": {"cmd": "echo {Date}"}}]}},
            "#/template/tasks/0/payload/cmd",
            "no parameter {Date}; there are scheduled_at, date",
        ),
        (
            {"template": {"name": "x", "tasks": [{"payload": {"cmd": "x"}, "priority": 101}]}},
            "#/template/tasks/0/priority",
            "less than or equal to 100",
        ),
        (
            {"template": {"name": "x", "tasks": [{"payload": {"cmd": "x"}}] * 1001}},
            "#/template/tasks",
            "at most 1,000 tasks",
        ),
    ],
)
def test_bad_input_is_refused_by_name_and_nothing_is_stored(client, change, pointer, said):
    document = problem(client.send(URL, {**NIGHTLY, **change}), 400, "invalid")
    assert pointers(document) == [pointer]
    assert said in document["errors"][0]["detail"]
    assert not Schedule.objects.exists()
    assert not AuditEvent.objects.exists()

    kept = scheduled(name="kept")
    document = problem(patch(client, kept.pk, **change), 400, "invalid")
    assert pointers(document) == [pointer]
    kept.refresh_from_db()
    assert kept.cron == "* * * * *"


def test_a_change_without_a_body_is_refused(client):
    kept = scheduled()
    problem(client.generic("PATCH", f"{URL}/{kept.pk}"), 400, "parse_error")
    assert patch(client, kept.pk).status_code == 200


def test_what_is_required_is_named(client):
    assert pointers(problem(client.send(URL, {}), 400, "invalid")) == [
        "#/name",
        "#/cron",
        "#/template",
    ]


def test_a_name_is_taken_once(client):
    client.send(URL, NIGHTLY)
    problem(client.send(URL, NIGHTLY), 409, "schedule_exists")
    other = scheduled(name="other")
    problem(patch(client, other.pk, name="nightly"), 409, "schedule_exists")


def test_a_change_moves_the_next_time(client):
    schedule = scheduled()
    answer = patch(client, schedule.pk, cron="0 0 1 1 *", time_zone="UTC")
    assert answer.status_code == 200
    assert answer.json()["next_run_at"].endswith("-01-01T00:00:00Z")
    assert recorded()[-1] == ("alice", "change", f"schedule {schedule.pk}")
    before = answer.json()["next_run_at"]
    found = patch(client, schedule.pk, overlap="queue").json()
    assert (found["next_run_at"], found["overlap"]) == (before, "queue")


def test_pause_and_resume(client):
    schedule = scheduled(back=timedelta(hours=1), catch_up="all")
    found = client.send(f"{URL}/{schedule.pk}/pause").json()
    assert (found["state"], found["next_run_at"], found["next_runs"]) == ("paused", None, [])
    problem(client.send(f"{URL}/{schedule.pk}/pause"), 409, "wrong_state")
    assert firing.make_due() == 0
    assert patch(client, schedule.pk, cron="*/2 * * * *").json()["state"] == "paused"
    found = client.send(f"{URL}/{schedule.pk}/resume").json()
    assert found["state"] == "active"
    assert found["next_run_at"] > timezone.now().isoformat()
    problem(client.send(f"{URL}/{schedule.pk}/resume"), 409, "wrong_state")
    assert [action for _, action, _ in recorded()] == ["pause", "change", "resume"]


def test_fire_now_and_the_list_of_firings(client):
    schedule = scheduled(template=TEMPLATE)
    fired = client.send(f"{URL}/{schedule.pk}/fire")
    assert fired.status_code == 201
    job = Job.objects.get(pk=fired.json()["job_id"])
    assert job.name == f"backup {timezone.now():%Y-%m-%d}"
    client.send(f"{URL}/{schedule.pk}/fire")
    listed = client.get(f"{URL}/{schedule.pk}/firings?limit=1").json()
    assert [row["outcome"] for row in listed["results"]] == ["fired"]
    assert listed["next"]
    before = schedule.next_run_at
    schedule.refresh_from_db()
    assert schedule.next_run_at == before
    assert [action for _, action, _ in recorded()] == ["fire", "fire"]


def test_fire_is_refused_as_a_submit_would_be(client, settings, monkeypatch):
    schedule = scheduled()
    Schedule.objects.update(template={"name": "x"})
    problem(client.send(f"{URL}/{schedule.pk}/fire"), 422, "invalid_template")
    settings.DTS = {**settings.DTS, "MAX_BACKLOG": 1}
    monkeypatch.setattr(firing, "backlog", Backlog())
    submit("true")
    Schedule.objects.update(template=TEMPLATE)
    problem(client.send(f"{URL}/{schedule.pk}/fire"), 429, "overloaded")
    assert not Firing.objects.exists()
    assert not AuditEvent.objects.exists()


def test_delete(client):
    schedule = scheduled()
    client.send(f"{URL}/{schedule.pk}/fire")
    assert client.delete(f"{URL}/{schedule.pk}").status_code == 204
    assert not Firing.objects.exists()
    assert Job.objects.count() == 1
    problem(client.get(f"{URL}/{schedule.pk}"), 404, "not_found")
    problem(client.delete(f"{URL}/{schedule.pk}"), 404, "not_found")
    assert recorded()[-1] == ("alice", "delete", f"schedule {schedule.pk}")


def test_nobody_schedules_without_the_scope_to_submit():
    problem(Client("read", "operate").send(URL, NIGHTLY), 403, "scope_missing")
    schedule = scheduled()
    problem(patch(Client("read", "operate"), schedule.pk, template=TEMPLATE), 403, "scope_missing")
    assert Schedule.objects.count() == 1
