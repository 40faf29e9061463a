import re

import pytest
from django.contrib.auth.models import Permission, User

from jobs.models import AuditEvent, Job
from scheduling.models import Schedule
from tests.helpers import scheduled

pytestmark = pytest.mark.django_db
URL = "/admin/scheduling/schedule/"


def text(response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def act(client, action: str, *ids: int):
    data = {"action": action, "_selected_action": [str(pk) for pk in ids]}
    return text(client.post(URL, data, follow=True))


def test_the_list_says_when_in_words(admin_client):
    scheduled("30 2 * * MON-FRI", name="nightly", time_zone="Europe/Berlin")
    page = text(admin_client.get(URL))
    assert "nightly" in page
    assert "02:30" in page
    assert "(Europe/Berlin)" in page
    assert "Schedules" in text(admin_client.get("/admin/"))


def test_a_page_shows_the_next_five_runs_in_words_and_times(admin_client):
    schedule = scheduled("30 2 * * *", name="nightly", time_zone="Europe/Berlin")
    act(admin_client, "fire", schedule.pk)
    page = text(admin_client.get(f"{URL}{schedule.pk}/change/"))
    assert len(re.findall(r"[A-Z][a-z]{2} \d{4}-\d\d-\d\d 02:30:00 CES?T", page)) == 5
    assert "At 02:30 every day" in page
    assert f"#{Job.objects.get().pk}" in page
    assert "fire" in page  # what people did
    assert '"cmd": "true"' in page.replace("&quot;", '"')


def test_a_page_shows_what_it_runs_and_no_secret(admin_client):
    password = {"secret": True, "value": "hush"}
    dump = {"key": "dump", "payload": {"cmd": "pg_dump", "env": {"PGPASSWORD": password}}}
    parent = {"key": "dump", "on_failure": "run"}
    look = {"kind": "python", "payload": {"function": "os.getpid"}, "depends_on": [parent]}
    schedule = scheduled(template={"name": "backup of {date}", "tasks": [dump, look]})
    page = text(admin_client.get(f"{URL}{schedule.pk}/change/"))
    assert "backup of {date}" in page
    assert re.search(r"dump pg_dump - .*- os.getpid\(\) dump ", page)
    assert "hush" not in page


def test_actions_pause_resume_and_fire_and_are_recorded(admin_client):
    schedule = scheduled()
    assert "Paused 1 schedule." in act(admin_client, "pause", schedule.pk)
    assert Schedule.objects.get().state == "paused"
    again = act(admin_client, "pause", schedule.pk)
    assert "is paused already" in again
    assert "Paused 0 schedules." in again
    assert "Resumed 1 schedule." in act(admin_client, "resume", schedule.pk)
    assert "Submitted the job of 1 schedule." in act(admin_client, "fire", schedule.pk)
    assert Job.objects.count() == 1
    assert list(AuditEvent.objects.order_by("pk").values_list("action", flat=True)) == [
        "pause", "resume", "fire",
    ]  # fmt: skip


def test_a_paused_one_says_why(admin_client):
    schedule = scheduled()
    Schedule.objects.update(
        paused_at="2026-01-01T00:00Z", next_run_at=None, paused_reason="no such field"
    )
    assert "no such field" in text(admin_client.get(URL))
    page = text(admin_client.get(f"{URL}{schedule.pk}/change/"))
    assert "Paused: no such field" in page
    assert "None: it is paused." in page


def test_who_may_only_look_cannot_act(client):
    schedule = scheduled()
    user = User.objects.create_user("eve", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_schedule"))
    client.force_login(user)
    assert schedule.name in text(client.get(URL))
    act(client, "fire", schedule.pk)
    assert not Job.objects.exists()


# -- a new one -------------------------------------------------------------------------------

FORM = {
    "name": "nightly",
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
    "template": '{"name": "backup {date}", "tasks": [{"payload": {"cmd": "true"}}]}',
    "overlap": "skip",
    "catch_up": "none",
    "catch_up_limit": "5",
    "starts_at_0": "2030-01-01",
    "starts_at_1": "12:00:00",
    "jitter_seconds": "0",
}


def test_a_new_one_is_made_and_its_next_five_runs_are_shown(admin_client):
    assert "Letters, digits" in text(admin_client.get(f"{URL}add/"))

    page = text(admin_client.post(f"{URL}add/", FORM, follow=True))

    assert "Made nightly." in page
    runs = re.findall(r"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d) 02:30:00 CET", page)
    assert runs == [f"2030-01-0{day}" for day in range(2, 7)]
    made = Schedule.objects.get()
    assert (made.overlap, made.catch_up, made.catch_up_limit) == ("skip", "none", 5)
    assert (made.created_by, made.state) == ("admin", "active")
    assert made.template["tasks"] == [{"payload": {"cmd": "true"}}]
    event = AuditEvent.objects.get()
    assert (event.actor, event.action, event.target) == ("admin", "create", f"schedule {made.pk}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a b"}, "Use letters, digits"),
        ({"cron": "61 * * * *"}, "61"),
        ({"time_zone": "Mars"}, "Mars"),
        ({"template": "{"}, "The template is not JSON"),
        ({"template": "[]"}, "Expected a dictionary"),
        ({"template": '{"name": "x", "tasks": []}'}, "tasks: "),
        (
            {"template": '{"name": "x", "tasks": [{"payload": {"cmd": "{day}"}}]}'},
            "tasks/0/payload",
        ),
        ({"jitter_seconds": "90000"}, "less than or equal to 86400"),
        ({"catch_up_limit": "0"}, "greater than or equal to 1"),
        ({"ends_at_0": "2029-01-01", "ends_at_1": "12:00:00"}, "It ends before it starts."),
    ],
)
def test_what_the_api_would_refuse_is_refused_beside_its_field(admin_client, change, said):
    page = text(admin_client.post(f"{URL}add/", {**FORM, **change}, follow=True))
    assert said in page
    assert not Schedule.objects.exists()
    assert not AuditEvent.objects.exists()


def test_the_name_of_another_is_refused(admin_client):
    scheduled(name="nightly")
    assert "already exists" in text(admin_client.post(f"{URL}add/", FORM, follow=True))
    assert Schedule.objects.count() == 1


def test_who_may_not_add_is_not_let(client):
    user = User.objects.create_user("eve", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_schedule"))
    client.force_login(user)
    assert client.post(f"{URL}add/", FORM).status_code == 403
    assert not Schedule.objects.exists()
