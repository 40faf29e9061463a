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
