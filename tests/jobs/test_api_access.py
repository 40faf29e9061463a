"""Who may do what: tokens and their scopes, staff, and nobody in particular."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client as Browser
from django.utils import timezone

from jobs.models import Job, Token
from tests.api import JOB, Client, problem
from tests.helpers import register, submit

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nobody_without_token(settings):
    settings.DTS = {**settings.DTS, "ANONYMOUS_ACCESS": "off"}


def allow(settings, mode):
    settings.DTS = {**settings.DTS, "ANONYMOUS_ACCESS": mode}


def bearer(text):
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=text)
    return client


def test_without_credentials():
    for path in ("/api/v1", "/api/v1/jobs", "/api/v1/tasks/1", "/api/v1/workers", "/metrics"):
        answer = Client().get(path)
        problem(answer, 401, "not_authenticated")
        assert answer["WWW-Authenticate"] == "Bearer"
    problem(Client().send("/api/v1/jobs", JOB), 401, "not_authenticated")
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "text", ["Bearer", "Bearer x", "Bearer dts_00000000_" + "a" * 43, "Bearer dts_\x00_\xff"]
)
def test_tokens_that_are_none(text):
    answer = bearer(text).get("/api/v1/jobs")
    problem(answer, 401, "authentication_failed")
    assert answer["WWW-Authenticate"] == "Bearer"


def test_tokens_revoked_expired_or_guessed():
    _, text = Token.issue("a", ["read"])
    assert bearer(f"Bearer {text}").get("/api/v1/jobs").status_code == 200
    assert bearer(f"bearer {text}").get("/api/v1/jobs").status_code == 200
    problem(bearer(f"Bearer {text[:-1]}").get("/api/v1/jobs"), 401, "authentication_failed")
    Token.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    problem(bearer(f"Bearer {text}").get("/api/v1/jobs"), 401, "authentication_failed")
    Token.objects.update(expires_at=None, revoked_at=timezone.now())
    problem(bearer(f"Bearer {text}").get("/api/v1/jobs"), 401, "authentication_failed")


def test_a_bad_token_is_refused_where_none_is_needed(settings):
    allow(settings, "trusted-network")
    problem(bearer("Bearer nonsense").get("/api/v1/jobs"), 401, "authentication_failed")


def test_use_is_noted_once_a_minute(django_assert_num_queries):
    client = Client("read")
    client.get("/api/v1/jobs")
    token = Token.objects.get()
    assert token.last_used_at
    with django_assert_num_queries(2):  # the token and the jobs
        client.get("/api/v1/jobs")
    assert Token.objects.get().last_used_at == token.last_used_at
    Token.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    client.get("/api/v1/jobs")
    assert Token.objects.get().last_used_at > token.last_used_at


# -- staff -------------------------------------------------------------------------------------


def browser(**user):
    person = User.objects.create_user("pat", password="x", **user)
    client = Browser(enforce_csrf_checks=True, raise_request_exception=False)
    client.force_login(person)
    return person, client


def csrf(client):
    client.cookies["csrftoken"] = "a" * 32
    return {"HTTP_X_CSRFTOKEN": "a" * 32}


def test_staff_read_but_write_only_with_permission():
    person, client = browser(is_staff=True)
    assert client.get("/api/v1/jobs").status_code == 200
    post = {"content_type": "application/json", **csrf(client)}
    problem(client.post("/api/v1/jobs", JOB, **post), 403, "scope_missing")
    person.user_permissions.add(Permission.objects.get(codename="add_job"))
    made = client.post("/api/v1/jobs", JOB, **post)
    assert (made.status_code, made.json()["submitted_by"]) == (201, "pat")
    path = f"/api/v1/jobs/{made.json()['id']}/cancel"
    problem(client.post(path, **post), 403, "scope_missing")
    person.user_permissions.add(Permission.objects.get(codename="change_task"))
    assert client.post(path, **post).status_code == 200


def test_a_session_needs_the_csrf_token():
    _, client = browser(is_staff=True, is_superuser=True)
    answer = client.post("/api/v1/jobs", JOB, content_type="application/json")
    assert "CSRF" in problem(answer, 403, "permission_denied")["detail"]
    answer = client.post("/api/v1/jobs", JOB, content_type="application/json", **csrf(client))
    assert answer.status_code == 201


def test_users_who_are_not_staff_are_strangers():
    _, client = browser()
    problem(client.get("/api/v1/jobs"), 401, "not_authenticated")


@pytest.mark.parametrize(
    "path", ["", "/jobs", "/jobs/{job}", "/tasks", "/tasks/{task}", "/workers", "/workers/{worker}"]
)
def test_only_staff_browse(settings, path):
    (task,) = submit("true")
    path = "/api/v1" + path.format(task=task.pk, job=task.job_id, worker=register().pk)
    html = {"HTTP_ACCEPT": "text/html,application/xhtml+xml,*/*;q=0.8"}
    _, client = browser(is_staff=True, is_superuser=True)
    page = client.get(path, **html)
    assert (page.status_code, page["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert client.get(path)["Content-Type"] == "application/json"
    assert Client("read").get(path, **html)["Content-Type"] == "application/json"
    problem(Client("read").get(path, HTTP_ACCEPT="text/html"), 406, "not_acceptable")


# -- nobody in particular ----------------------------------------------------------------------


def test_anybody_on_this_machine(settings):
    allow(settings, "loopback")
    client = Client()
    made = client.send("/api/v1/jobs", JOB)
    assert (made.status_code, made.json()["submitted_by"]) == (201, "anonymous")
    assert client.get("/api/v1/tasks?status=done").status_code == 200
    assert client.get("/metrics").status_code == 200
    problem(client.get("/api/v1/jobs", REMOTE_ADDR="192.0.2.1"), 401, "not_authenticated")
    assert client.get("/api/v1/jobs", REMOTE_ADDR="::1").status_code == 200
    passed_on = client.get("/api/v1/jobs", HTTP_X_FORWARDED_FOR="192.0.2.1")
    problem(passed_on, 401, "not_authenticated")


def test_anybody_on_a_trusted_network(settings):
    allow(settings, "trusted-network")
    answer = Client().send("/api/v1/jobs", JOB, REMOTE_ADDR="192.0.2.1")
    assert answer.status_code == 201


def test_pages_of_other_sites_may_not_act_for_anybody(settings):
    allow(settings, "loopback")
    (task,) = submit("true")
    path = f"/api/v1/tasks/{task.pk}/cancel"
    problem(Client().post(path, HTTP_ORIGIN="https://evil.example"), 403, "permission_denied")
    problem(Client().post(path, HTTP_ORIGIN="null"), 403, "permission_denied")
    assert Client().post(path, HTTP_ORIGIN="http://testserver").status_code == 200
