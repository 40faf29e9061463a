"""The overview and the way to the other pages."""

import re

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import queue
from jobs.states import Outcome
from scheduling import figures
from tests.helpers import claim, ended, promote, register, running, shell, submit

pytestmark = pytest.mark.django_db

INDEX, FRAGMENT = "/admin/", "/admin/overview/"


@pytest.fixture(autouse=True)
def _figures_of_this_test(monkeypatch):
    monkeypatch.setattr(figures, "_last", None)
    monkeypatch.setattr(figures, "CACHED_SECONDS", -1)


def text(response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def test_an_empty_installation_tells_what_to_do(admin_client):
    page = text(admin_client.get(INDEX))
    assert "No worker takes tasks. Start one: manage.py run_worker" in page
    assert "manage.py submit" in page


def test_the_overview_shows_what_goes_on(admin_client):
    worker = register("alpha", slots=4)
    first, *_ = running("make all", "sleep 9", worker=worker)
    queue.report([ended(first, Outcome.FAILED, error="no rule to make target")])
    needy = shell("scan", requires=["fpga", "mem_mb>=3000"], slots=6)
    (task,) = submit(needy, queue="bio", name="genome")
    for url in (INDEX, FRAGMENT):
        page = text(admin_client.get(url))
        assert "Pending 1 Queued 0 Running 1" in page
        assert "alpha online 1/4" in page
        assert "no rule to make target" in page
        assert "genome pending" in page
        assert "no live worker serves queue bio needing fpga, mem_mb&gt;=4096, 6 slots" in page
        start = "manage.py run_worker --capabilities fpga,mem_mb=4096 --queues bio --slots 6"
        assert start in page
    page = text(admin_client.get(f"/admin/jobs/task/{task.pk}/change/"))
    assert "No live worker offers fpga, mem_mb&gt;=4096." in page
    assert "Requires fpga, mem_mb&gt;=4096 Slots 6" in page


def test_the_fragment_is_a_part_and_the_page_asks_for_it(admin_client):
    assert "<html" not in admin_client.get(FRAGMENT).content.decode()
    page = admin_client.get(INDEX).content.decode()
    assert f'hx-get="{FRAGMENT}"' in page
    assert "document.visibilityState" in page


@pytest.mark.parametrize("url", [INDEX, FRAGMENT])
def test_strangers_are_sent_to_sign_in(client, url):
    assert client.get(url).headers["Location"].startswith("/admin/login/")


def test_a_fragment_asked_for_after_the_session_ended_reloads_the_page(client):
    answer = client.get(FRAGMENT, headers={"HX-Request": "true"})
    assert answer.headers["HX-Refresh"] == "true"
    assert answer.content == b""


def test_signing_in_leads_to_the_overview(client):
    User.objects.create_superuser("root", password="correct horse")
    page = client.get("/admin/login/").content.decode()
    (action,) = re.findall(r'<form action="([^"]+)" method="post" id="login-form"', page)
    answer = client.post(
        action.replace("&amp;", "&"), {"username": "root", "password": "correct horse"}
    )
    assert answer.headers["Location"] == INDEX


def test_people_see_what_they_may_see(client):
    submit("secret command", name="secret job")
    user = User.objects.create_user("eve", is_staff=True)
    client.force_login(user)
    page = text(client.get(INDEX))
    assert "You may not see tasks." in page
    assert "secret" not in page
    assert "Workers" not in page
    user.user_permissions.set(Permission.objects.filter(codename="view_worker"))
    assert "Workers" in text(client.get(INDEX))


def test_the_index_asks_as_often_for_one_row_as_for_two_hundred(admin_client):
    def asked() -> int:
        with CaptureQueriesContext(connection) as found:
            assert admin_client.get(INDEX).status_code == 200
        return len(found)

    worker = register(slots=300)
    (claimed,) = running("true", worker=worker)
    queue.report([ended(claimed, Outcome.FAILED)])
    submit("true")
    asked()
    before = asked()
    for _ in range(20):
        submit(*["true"] * 20)
    promote()
    queue.report([ended(task, Outcome.FAILED) for task in claim(worker, 100)])
    submit("true")
    assert asked() == before <= 16
