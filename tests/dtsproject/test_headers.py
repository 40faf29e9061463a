"""What browsers are told, and settings as they are to be in production."""

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client as Browser

from tests.api import Client

pytestmark = pytest.mark.django_db

PRODUCTION = {
    "DTS_LOCAL": "0",
    "HTTPS": "True",
    "ALLOWED_HOSTS": "dts.example.org",
    "SECRET_KEY": "of-this-test-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFG",
    "DJANGO_SETTINGS_MODULE": "dtsproject.settings",
    "DATABASE_URL": "postgresql://127.0.0.1:1/unused",
}
PATHS = ["/api/v1/jobs", "/api/v1/nope", "/healthz", "/api/schema", "/docs", "/admin/login/"]


def manage(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, **PRODUCTION, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_deployment_check_has_nothing_to_say():
    checked = manage("check", "--deploy", "--fail-level", "WARNING")
    assert (checked.returncode, "no issues" in checked.stdout) == (0, True), checked.stderr


def test_it_does_say_what_is_missing():
    checked = manage("check", "--deploy", "--fail-level", "WARNING", HTTPS="False")
    assert checked.returncode == 1
    for what in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS"):
        assert what in checked.stderr


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_the_headers(path):
    answer = Client("read").get(path)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    policy = answer["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline' 'unsafe-eval" not in policy
    scripts = [part for part in policy.split("; ") if part.startswith("script-src")]
    if answer["Content-Type"].startswith("text/html"):
        evaluates = " 'unsafe-eval'" if path.startswith("/admin/") else ""
        assert scripts == [f"script-src 'self'{evaluates}"]
    else:
        assert scripts == []


def test_https_is_kept_to(settings):
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 31_536_000
    answer = Client("read").get("/api/v1/jobs", secure=True)
    assert answer["Strict-Transport-Security"] == "max-age=31536000"
    plain = Client("read").get("/api/v1/jobs")
    assert (plain.status_code, plain["Location"]) == (301, "https://testserver/api/v1/jobs")
    assert Client().get("/healthz").status_code == 200


# -- signing in --------------------------------------------------------------------------------


@pytest.fixture
def browser():
    User.objects.create_superuser("root", password="correct")
    return Browser(enforce_csrf_checks=True)


def sign_in(browser, **more):
    page = browser.get("/admin/login/")
    token = page.context["csrf_token"]
    form = {"username": "root", "password": "correct", "csrfmiddlewaretoken": str(token)}
    return browser.post("/admin/login/", {**form, **more})


def test_cookies_are_for_us_alone(browser, settings):
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    answer = sign_in(browser)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    session, csrf = answer.cookies["sessionid"], answer.cookies["csrftoken"]
    for cookie in (session, csrf):
        assert cookie["secure"]
        assert cookie["samesite"] == "Lax"
    assert session["httponly"]


def test_a_form_from_elsewhere_signs_nobody_in(browser):
    form = {"username": "root", "password": "correct"}
    assert browser.post("/admin/login/", form).status_code == 403
    assert "sessionid" not in browser.cookies


def test_who_signs_in_stays_with_us(browser):
    answer = sign_in(browser, next="https://evil.example/")
    assert answer["Location"] == "/admin/"


def test_a_wrong_password_says_no_more_than_a_wrong_name(browser):
    wrong = sign_in(browser, password="wrong").context["form"].errors
    unknown = sign_in(browser, username="nobody").context["form"].errors
    assert wrong == unknown
