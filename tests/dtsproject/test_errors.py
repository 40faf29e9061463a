"""Every layer's errors are problem documents under the API's paths, and pages elsewhere."""

import json
import re
import uuid
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import InterfaceError, OperationalError
from django.test import Client as Browser

from jobs.api.jobs import JobViewSet
from tests.api import JOB, Client, problem
from tests.helpers import submit

pytestmark = pytest.mark.django_db
COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def raising(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(JobViewSet, "get_queryset", fail)


def test_an_unknown_id():
    document = problem(Client("read").get("/api/v1/jobs/7"), 404, "not_found")
    assert document["instance"] == "/api/v1/jobs/7"


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/v1/nope", "/api/v2/jobs", "/api/v1/jobs/x"]
)
@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_an_unknown_route(path, method):
    problem(getattr(Browser(enforce_csrf_checks=True), method)(path), 404, "no_such_route")


@pytest.mark.parametrize(
    "path", ["/api/v1", "/api/v1/jobs", "/api/v1/jobs/7/cancel", "/api/schema"]
)
def test_a_slash_at_the_end_is_told_the_right_path(path):
    document = problem(Client().post(f"{path}/"), 404, "no_such_route")
    assert f"Use {path}," in document["detail"]


def test_pages_outside_the_api_stay_pages():
    answer = Client().get("/nope")
    assert answer.status_code == 404
    assert answer["Content-Type"].startswith("text/html")


def test_a_method_that_is_not_there():
    answer = Client("read", "submit", "operate", "admin").delete("/api/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert answer["Allow"] == "GET, HEAD, POST"


def test_what_cannot_be_had():
    answer = Client("read").get("/api/v1/jobs", HTTP_ACCEPT="application/xml")
    problem(answer, 406, "not_acceptable")


def test_a_host_we_do_not_serve():
    problem(Client().get("/api/v1/jobs", HTTP_HOST="evil.example"), 400, "bad_request")
    page = Client().get("/admin/", HTTP_HOST="evil.example")
    assert (page.status_code, page["Content-Type"]) == (400, "text/html; charset=utf-8")


def test_a_fault_of_ours_shows_no_inside(monkeypatch):
    raising(monkeypatch, ZeroDivisionError("secret detail"))
    answer = Client("read").get("/api/v1/jobs")
    problem(answer, 500, "internal_error")
    assert b"secret" not in answer.content
    assert b"Traceback" not in answer.content


@pytest.mark.parametrize("error", [OperationalError("secret"), InterfaceError("secret")])
def test_the_database_away(monkeypatch, error):
    raising(monkeypatch, error)
    answer = Client("read").get("/api/v1/jobs")
    problem(answer, 503, "unavailable")
    assert int(answer["Retry-After"]) > 0
    assert b"secret" not in answer.content


def test_the_database_away_before_the_view(monkeypatch):
    def fail(*args, **kwargs):
        raise OperationalError("gone")

    monkeypatch.setattr("jobs.models.Token.find", fail)
    answer = Client("read").get("/api/v1/jobs")
    problem(answer, 503, "unavailable")
    monkeypatch.setattr(
        "django.contrib.sessions.middleware.SessionMiddleware.process_request", fail
    )
    problem(Client().get("/api/v1/jobs"), 503, "unavailable")
    problem(Client().get("/admin/"), 503, "unavailable")


# -- request ids -------------------------------------------------------------------------------


def test_a_request_has_an_id():
    answer = Client("read").get("/api/v1/jobs/7")
    document = problem(answer, 404, "not_found")
    assert document["request_id"] == answer["X-Request-ID"] != ""
    assert Client("read").get("/api/v1/jobs")["X-Request-ID"] != answer["X-Request-ID"]


def test_an_id_given_is_kept_unless_it_is_nonsense():
    given = str(uuid.uuid4())
    assert Client().get("/healthz", HTTP_X_REQUEST_ID=given)["X-Request-ID"] == given
    for nonsense in ("a b", "x" * 65, "<script>"):
        answer = Client().get("/healthz", HTTP_X_REQUEST_ID=nonsense)
        assert re.fullmatch("[0-9a-f]{32}", answer["X-Request-ID"])


# -- the document and its page -----------------------------------------------------------------


def test_the_openapi_document_is_whole_and_without_warnings(tmp_path):
    path = tmp_path / "schema.json"
    call_command(
        "spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", file=str(path)
    )
    document = json.loads(path.read_text())
    assert document == json.loads(COMMITTED.read_text()), "the API has changed: make schema"
    assert document["openapi"] == "3.1.0"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status in ("400", "401", "403", "406", "429", "500", "503"):
                response = operation["responses"][status]
                assert "application/problem+json" in response["content"], path
            assert {} in operation["security"]
            assert {"token": []} in operation["security"]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    example = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]
    (example,) = example["application/json"]["examples"].values()
    assert example["value"]["name"] == "demo-batch"


def test_the_schema_is_json_for_everybody():
    answer = Client().get("/api/schema")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("application/vnd.oai.openapi+json")
    assert "/api/v1/jobs" in json.loads(answer.content)["paths"]


def test_the_docs_ask_no_other_host_and_have_no_inline_script():
    page = Client().get("/docs", HTTP_ACCEPT="text/html")
    assert page.status_code == 200
    policy = page["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    html = page.content.decode()
    sources = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(sources) == 5
    assert all(source.startswith("/") and not source.startswith("//") for source in sources)
    assert re.findall(r"<script>", html) == []
    (script,) = [source for source in sources if source.startswith("/docs")]
    answer = Client().get(script)
    assert answer["Content-Type"].startswith("application/javascript")
    assert b'"/api/schema"' in answer.content
    assert b'"validatorUrl": null' in answer.content


def test_answers_are_of_the_shape_documented():
    """The documented schemas against real answers."""
    import jsonschema

    client = Client("read", "submit")
    document = json.loads(client.get("/api/schema").content)
    submit("true")
    made = client.send("/api/v1/jobs", JOB)
    shapes = {
        ("/api/v1/jobs", "post", "201"): made,
        ("/api/v1/jobs", "get", "200"): client.get("/api/v1/jobs"),
        ("/api/v1/jobs/{id}", "get", "200"): client.get(made["Location"]),
        ("/api/v1/tasks", "get", "200"): client.get("/api/v1/tasks"),
        ("/api/v1/tasks/{id}", "get", "404"): client.get("/api/v1/tasks/999999999"),
        ("/api/v1/tasks", "get", "400"): client.get("/api/v1/tasks?nope=1"),
    }
    for (path, method, status), answer in shapes.items():
        assert str(answer.status_code) == status
        (content,) = document["paths"][path][method]["responses"][status]["content"].values()
        schema = {**content["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(json.loads(answer.content))


def test_staff_pages_keep_their_errors():
    User.objects.create_superuser("root", password="x")
    browser = Browser()
    browser.force_login(User.objects.get())
    answer = browser.get("/admin/nope/")
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/html; charset=utf-8")
