"""Attacks that fail. What each scope opens is in test_scopes.py."""

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from jobs.models import Job, Task, Token
from jobs.models.access import SCOPES
from tests.api import JOB, Client, problem
from tests.helpers import promote, register, submit

pytestmark = pytest.mark.django_db


class Worker:
    """One that speaks HTTP, by a token that is bound to its name."""

    def __init__(self, name):
        self.row = register(name)
        self.client = Client()
        _, text = Token.issue(name, ["work"], worker_name=name)
        self.client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")

    def say(self, verb, **body):
        return self.say_as(self, verb, **body)

    def say_as(self, other, verb, **body):
        body = {"boot_id": str(other.row.boot_id), **body}
        return self.client.send(f"/api/v1/workers/{other.row.pk}/{verb}", body)


@pytest.fixture
def honest():
    return Worker("honest")


@pytest.fixture
def thief():
    return Worker("thief")


@pytest.fixture
def held(honest):
    """A task that the honest worker holds."""
    submit("true")
    promote()
    (task,) = honest.say("claim", limit=1).json()["tasks"]
    return {name: task[name] for name in ("task_id", "fencing_token")}


def test_a_worker_cannot_report_what_another_holds(honest, thief, held):
    ending = {**held, "outcome": "done"}
    problem(thief.say("report", endings=[ending]), 409, "lease_lost")
    problem(thief.say_as(honest, "report", endings=[ending]), 403, "not_this_worker")
    assert Task.objects.get().status == "in_progress"
    assert honest.say("report", endings=[ending]).json()["results"][0]["status"] == "done"


def test_with_a_token_for_any_worker_it_cannot_either(honest, held):
    """Then the boot id, which only the worker and the server know, tells them apart."""
    anybody, other = Client("work"), register("other")
    report = {"boot_id": str(other.boot_id), "endings": [{**held, "outcome": "done"}]}
    problem(anybody.send(f"/api/v1/workers/{other.pk}/report", report), 409, "lease_lost")
    path = f"/api/v1/workers/{honest.row.pk}/report"
    problem(anybody.send(path, report), 409, "worker_superseded")
    assert Task.objects.get().status == "in_progress"


def test_a_worker_cannot_read_what_another_is_to_run(honest, thief, held):
    submit("echo secret")
    promote()
    problem(thief.say_as(honest, "claim", limit=1), 403, "not_this_worker")
    problem(thief.client.get(f"/api/v1/tasks/{held['task_id']}"), 403, "scope_missing")


def test_a_token_that_was_revoked_opens_nothing(honest):
    client = Client(*SCOPES)
    assert client.get("/api/v1/jobs").status_code == 200
    Token.objects.update(revoked_at=timezone.now())
    problem(client.get("/api/v1/jobs"), 401, "authentication_failed")
    problem(client.send("/api/v1/jobs", JOB), 401, "authentication_failed")
    problem(honest.say("claim", limit=1), 401, "authentication_failed")
    problem(client.get("/metrics"), 401, "authentication_failed")


def test_a_token_to_read_submits_nothing():
    problem(Client("read").send("/api/v1/jobs", JOB), 403, "scope_missing")
    assert not Job.objects.exists()


def test_no_name_leads_to_a_file():
    (task,) = submit("true")
    path = f"/api/v1/tasks/{task.pk}/log?stream=../../../etc/passwd"
    problem(Client("read").get(path), 400, "invalid_query")
    for path in ("/static/../manage.py", "/static/%2e%2e/manage.py", "/docs?script=../manage.py"):
        assert b"DJANGO_SETTINGS_MODULE" not in Client().get(path).content
    with pytest.raises(CommandError):
        call_command("run_worker", "--name", "../w1")
