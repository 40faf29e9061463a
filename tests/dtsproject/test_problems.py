"""Whatever goes wrong, in whichever layer: one form of answer, and a code that stays."""

import json
import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client as Browser
from rest_framework.exceptions import Throttled

from dtsproject import problems
from dtsproject.errors import Refusal
from jobs.api.jobs import JobViewSet
from tests.api import JOB, Client
from tests.helpers import register, submit

pytestmark = pytest.mark.django_db
DOCUMENTED = Path(__file__).parents[2] / "docs" / "api.md"


def raising(error):
    def prepare(monkeypatch, settings):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(JobViewSet, "get_queryset", fail)

    return prepare


def without_sessions(monkeypatch, settings):
    def fail(*args, **kwargs):
        raise OperationalError("away")

    monkeypatch.setattr(
        "django.contrib.sessions.middleware.SessionMiddleware.process_request", fail
    )


def setting(**dts):
    def prepare(monkeypatch, settings):
        settings.DTS = {**settings.DTS, **dts}

    return prepare


def small_bodies(monkeypatch, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100


def unmigrated(monkeypatch, settings):
    monkeypatch.setattr("dtsproject.health.migrations_applied", lambda: False)


def nothing(monkeypatch, settings):
    pass


def full(monkeypatch, settings):
    setting(MAX_BACKLOG=0)(monkeypatch, settings)
    monkeypatch.setattr("jobs.intake.backlog._count_again_at", 0.0)


def as_staff(path):
    """A write of somebody who is signed in, without the CSRF token."""
    User.objects.create_superuser("root", password="x")
    browser = Browser(enforce_csrf_checks=True)
    browser.force_login(User.objects.get())
    return browser.post(path, JOB, content_type="application/json")


def anonymously(path):
    return Client().get(path)


def get(path, *scopes, **headers):
    return lambda: Client(*(scopes or ("read",))).get(path, **headers)


def post(path, body=JOB, *, scope="submit", **headers):
    return lambda: Client(scope).send(path, body, **headers)


def text(path):
    return Client("submit").post(path, b"x=1", content_type="application/x-www-form-urlencoded")


def twice():
    client = Client("submit")
    client.send("/api/v1/jobs", JOB, HTTP_IDEMPOTENCY_KEY="k")
    return client.send("/api/v1/jobs", {**JOB, "name": "b"}, HTTP_IDEMPOTENCY_KEY="k")


def cancelled_twice():
    (task,) = submit("true")
    client, path = Client("operate"), f"/api/v1/tasks/{task.pk}/cancel"
    client.send(path)
    return client.send(path)


def of_worker(verb, body=None, **token):
    def call():
        worker = register("w1")
        said = {"boot_id": str(worker.boot_id), **(body or {})}
        return Client("work").send(f"/api/v1/workers/{worker.pk}/{verb}", said)

    return call


REPORT = {"endings": [{"task_id": 1, "fencing_token": 1, "outcome": "done"}]}
V1 = "/api/v1"
# layer: status, code, the call, what must be prepared
CASES = {
    "host": (400, "bad_request", get(f"{V1}/jobs", HTTP_HOST="evil.example"), nothing),
    "route": (404, "no_such_route", get(f"{V1}/nope"), nothing),
    "route of the api's root": (404, "no_such_route", get("/api/v2"), nothing),
    "route beside a probe": (404, "no_such_route", get("/healthz/nope"), nothing),
    "slash": (404, "no_such_route", post(f"{V1}/jobs/"), nothing),
    "path": (404, "no_such_route", get(f"{V1}/jobs/%00"), nothing),
    "method": (405, "method_not_allowed", lambda: Client("submit").put(f"{V1}/jobs"), nothing),
    "method of a probe": (405, "method_not_allowed", post("/healthz"), nothing),
    "method of the schema": (405, "method_not_allowed", post("/api/schema"), nothing),
    "method of metrics": (405, "method_not_allowed", post("/metrics", scope="admin"), nothing),
    "accept": (406, "not_acceptable", get(f"{V1}/jobs", HTTP_ACCEPT="image/png"), nothing),
    "no token": (
        401,
        "not_authenticated",
        lambda: anonymously(f"{V1}/jobs"),
        setting(ANONYMOUS_ACCESS="off"),
    ),
    "no token at metrics": (
        401,
        "not_authenticated",
        lambda: anonymously("/metrics"),
        setting(ANONYMOUS_ACCESS="off"),
    ),
    "token": (
        401,
        "authentication_failed",
        lambda: Client().get(f"{V1}/jobs", HTTP_AUTHORIZATION="Bearer dts_no"),
        nothing,
    ),
    "scope": (403, "scope_missing", post(f"{V1}/jobs", scope="read"), nothing),
    "csrf": (403, "permission_denied", lambda: as_staff(f"{V1}/jobs"), nothing),
    "origin": (
        403,
        "permission_denied",
        lambda: Client().send(f"{V1}/jobs", JOB, HTTP_ORIGIN="https://evil.example"),
        setting(ANONYMOUS_ACCESS="loopback"),
    ),
    "id": (404, "not_found", get(f"{V1}/jobs/7"), nothing),
    "JSON": (400, "parse_error", post(f"{V1}/jobs", b"{"), nothing),
    "UTF-8": (400, "parse_error", post(f"{V1}/jobs", b'"\xff"'), nothing),
    "depth": (400, "parse_error", post(f"{V1}/jobs", b"[" * 100_000), nothing),
    "NUL": (400, "invalid", post(f"{V1}/jobs", b'{"name": "\\u0000"}'), nothing),
    "media type": (415, "unsupported_media_type", lambda: text(f"{V1}/jobs"), nothing),
    "size": (413, "too_large", post(f"{V1}/jobs", {**JOB, "name": "x" * 200}), small_bodies),
    "chunks": (
        411,
        "length_required",
        post(f"{V1}/jobs", HTTP_TRANSFER_ENCODING="chunked"),
        nothing,
    ),
    "fields": (400, "invalid", post(f"{V1}/jobs", {**JOB, "nope": 1}), nothing),
    "fields of a verb": (
        400,
        "invalid",
        post(f"{V1}/jobs/1/cancel", {"reason": "x"}, scope="operate"),
        nothing,
    ),
    "parameters": (400, "invalid_query", get(f"{V1}/tasks?nope=1"), nothing),
    "parameters of the root": (400, "invalid_query", get(f"{V1}?nope=1"), nothing),
    "parameters of a verb": (400, "invalid_query", post(f"{V1}/jobs?nope=1"), nothing),
    "cursor": (400, "invalid_query", get(f"{V1}/tasks?cursor=x"), nothing),
    "key": (
        400,
        "invalid_idempotency_key",
        post(f"{V1}/jobs", HTTP_IDEMPOTENCY_KEY=""),
        nothing,
    ),
    "key reused": (422, "idempotency_key_reused", twice, nothing),
    "state": (409, "wrong_state", cancelled_twice, nothing),
    "lease": (409, "lease_lost", of_worker("report", REPORT), nothing),
    "boot": (
        409,
        "worker_superseded",
        of_worker("leave", {"boot_id": "00000000-0000-4000-8000-000000000000"}),
        nothing,
    ),
    "backlog": (429, "overloaded", post(f"{V1}/jobs"), full),
    "throttle": (429, "throttled", get(f"{V1}/jobs"), raising(Throttled(wait=2.5))),
    "fault": (500, "internal_error", get(f"{V1}/jobs"), raising(ZeroDivisionError("secret"))),
    "database": (503, "unavailable", get(f"{V1}/jobs"), raising(OperationalError("secret"))),
    "database before the view": (503, "unavailable", get(f"{V1}/jobs"), without_sessions),
    "migrations": (503, "unavailable", get("/readyz"), unmigrated),
}


@pytest.mark.parametrize("layer", CASES)
def test_every_layer_answers_with_a_problem(layer, monkeypatch, settings):
    status, code, call, prepare = CASES[layer]
    prepare(monkeypatch, settings)
    answer = call()
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    document = json.loads(answer.content)
    assert (document["code"], document["status"]) == (code, status)
    assert document["type"] == f"urn:dts:problem:{code}"
    assert document["instance"] == answer.wsgi_request.path
    assert document["request_id"] == answer["X-Request-ID"] != ""
    assert document["title"]
    assert document["detail"]
    assert "secret" not in answer.content.decode()
    if status in (429, 503):
        assert int(answer["Retry-After"]) > 0
    if status == 401:
        assert answer["WWW-Authenticate"] == "Bearer"
    if status == 405:
        assert "GET" in answer["Allow"]


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        ("fields", {"pointer": "#/nope", "code": "unknown"}),
        ("fields of a verb", {"pointer": "#/reason", "code": "unknown"}),
        ("NUL", {"pointer": "#/name", "code": "null_character"}),
        ("parameters", {"parameter": "nope"}),
        ("parameters of a verb", {"parameter": "nope"}),
        ("parameters of the root", {"parameter": "nope"}),
        ("cursor", {"parameter": "cursor"}),
    ],
)
def test_what_is_wrong_in_a_request_is_named(layer, place):
    (error,) = json.loads(CASES[layer][2]().content)["errors"]
    assert place.items() <= error.items()
    assert error["detail"]


def refusals(kind=Refusal):
    for sub in kind.__subclasses__():
        yield sub
        yield from refusals(sub)


def test_the_codes_are_those_documented():
    """A code is a promise: who changes one must change the list, too."""
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", DOCUMENTED.read_text(), re.M))
    known = {refusal.code: str(refusal.status) for refusal in [Refusal, *refusals()]}
    known |= {code: str(status) for status, code in problems.CODES.items()}
    known |= {code: str(status) for status, code, *_ in CASES.values()}
    assert documented == known
