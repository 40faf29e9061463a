"""Limits set, looked at and removed: by the API, a command and the admin; and what they explain."""

import pytest
from django.core.management import CommandError, call_command

from jobs import queue
from jobs.models import AuditEvent, Lease, Limit, Queue, Task
from scheduling.explain import why
from scheduling.lanes import queueing
from tests.api import Client, pointers, problem
from tests.helpers import claim, promote, register, shell, submit

pytestmark = pytest.mark.django_db


def put(client: Client, key: str, **body):
    return client.put(f"/api/v1/limits/{key}", body, format="json")


def test_by_the_api():
    client = Client("read", "operate", name="pat")
    made = put(client, "db/main", max_running=2)
    assert made.status_code == 201
    assert made.json()["max_running"] == 2
    changed = put(client, "db/main", rate_count=10, rate_seconds=60)
    assert (changed.status_code, changed.json()["id"]) == (200, made.json()["id"])
    assert (changed.json()["max_running"], changed.json()["rate_count"]) == (None, 10)
    assert client.get("/api/v1/limits/db/main").json() == changed.json()
    assert put(client, "tenant:*", max_running=1).json()["key"] == "tenant:*"
    keys = [limit["key"] for limit in client.get("/api/v1/limits").json()["results"]]
    assert keys == ["tenant:*", "db/main"]

    assert client.delete("/api/v1/limits/db/main").status_code == 204
    problem(client.delete("/api/v1/limits/db/main"), 404, "not_found")
    problem(client.get("/api/v1/limits/%00"), 404, "not_found")
    assert list(AuditEvent.objects.order_by("pk").values_list("actor", "action")) == [
        ("pat", "limit"), ("pat", "limit"), ("pat", "limit"), ("pat", "unlimit"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "#"),
        ({"max_running": None}, "#"),
        ({"max_running": 0}, "#/max_running"),
        ({"max_running": -1}, "#/max_running"),
        ({"max_running": "2"}, "#/max_running"),
        ({"rate_count": 0, "rate_seconds": 1}, "#/rate_count"),
        ({"rate_count": 1}, "#"),
        ({"rate_seconds": 1, "max_running": 1}, "#"),
        ({"rate_count": 1, "rate_seconds": 0}, "#/rate_seconds"),
        ({"rate_count": 1, "rate_seconds": 86401}, "#/rate_seconds"),
        ({"max_runing": 1}, "#/max_runing"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_name(body, where):
    found = problem(put(Client("operate"), "db", **body), 400, "invalid")
    assert pointers(found) == [where]
    assert not Limit.objects.exists()
    assert not AuditEvent.objects.exists()


def test_never_is_no_limit():
    found = problem(put(Client("operate"), "db", max_running=0), 400, "invalid")
    assert "to hold a queue, pause it" in found["errors"][0]["detail"]
    answer = Client("operate").patch("/api/v1/queues/a", {"max_running": 0}, format="json")
    assert "pause it" in problem(answer, 400, "invalid")["errors"][0]["detail"]
    assert not Queue.objects.exists()


@pytest.mark.parametrize("key", ["a b", "-a", "a**", "*a", "%C3%A4", "x" * 101])
def test_a_key_that_cannot_be_is_refused_by_name(key):
    answer = put(Client("operate"), key, max_running=1)
    assert "A key has up to 100" in problem(answer, 422, "invalid_key")["detail"]


def test_a_queue_by_the_api():
    client = Client("read", "operate", name="pat")
    made = client.patch("/api/v1/queues/etl", {"max_running": 3}, format="json")
    assert (made.status_code, made.json()["max_running"]) == (200, 3)
    assert client.get("/api/v1/queues/etl").json() == made.json()
    freed = client.patch("/api/v1/queues/etl", {"max_running": None}, format="json")
    assert freed.json()["max_running"] is None
    problem(client.patch("/api/v1/queues/etl", {}, format="json"), 400, "invalid")
    answer = client.patch(f"/api/v1/queues/{'x' * 41}", {"max_running": 1}, format="json")
    problem(answer, 404, "not_found")
    assert Queue.objects.count() == 1


def test_a_task_is_given_its_key():
    job = {"name": "x", "tasks": [{"payload": {"cmd": "x"}, "concurrency_key": "db:main"}]}
    client = Client("read", "submit")
    made = client.send("/api/v1/jobs", job)
    assert made.status_code == 201
    task = Task.objects.get()
    assert task.concurrency_key == "db:main"
    assert client.get(f"/api/v1/tasks/{task.pk}").json()["concurrency_key"] == "db:main"
    for key in ("a b", "db*", "x" * 101, 7, ""):
        job["tasks"][0]["concurrency_key"] = key
        found = problem(client.send("/api/v1/jobs", job), 400, "invalid")
        assert pointers(found) == ["#/tasks/0/concurrency_key"]
    call_command("submit", "true", "--concurrency-key", "web")
    assert Task.objects.latest("pk").concurrency_key == "web"


def test_by_the_command(capsys):
    call_command("limit", "set", "db", "--max-running", "2", "--rate", "10/60")
    call_command("limit", "set", "--queue", "etl", "--max-running", "4")
    call_command("limit", "list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["db", "max", "2", "rate", "10/60"],
        ["queue", "etl", "max", "4"],
    ]
    call_command("limit", "remove", "db")
    call_command("limit", "remove", "--queue", "etl")
    assert not Limit.objects.exists()
    assert Queue.objects.get().max_running is None
    found = AuditEvent.objects.order_by("pk").values_list("action", flat=True)
    assert list(found) == ["limit", "limit", "unlimit", "limit"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "db"], "Give max_running"),
        (["set", "db", "--max-running", "0"], "#/max_running: .*pause it"),
        (["set", "db", "--rate", "ten"], "10/60"),
        (["set", "db", "--rate", "0/60"], "#/rate_count"),
        (["set", "d b", "--max-running", "1"], "'d b': A key has up to"),
        (["set", "--max-running", "1"], "either a key or --queue"),
        (["set", "db", "--queue", "q", "--max-running", "1"], "either a key or --queue"),
        (["set", "--queue", "q"], "give --max-running"),
        (["set", "--queue", "q", "--max-running", "0"], "pause it"),
        (["set", "--queue", "q q", "--max-running", "1"], "cannot be a queue's name"),
        (["set", "--queue", "q", "--max-running", "1", "--rate", "1/1"], "--rate is for keys"),
        (["remove", "db"], "no limit 'db'"),
        (["remove", "--queue", "q"], "queue 'q' has no limit"),
    ],
)
def test_nonsense_exits_2_and_stores_nothing(arguments, said):
    with pytest.raises(CommandError, match=said) as refused:
        call_command("limit", *arguments)
    assert refused.value.returncode == 2
    assert not Limit.objects.exists()
    assert not Queue.objects.exists()
    assert not AuditEvent.objects.exists()


def test_by_the_admin(admin_client):
    page = "/admin/jobs/limit"
    asked = {"key": "db", "max_running": "2", "rate_count": "", "rate_seconds": ""}
    assert admin_client.post(f"{page}/add/", asked).status_code == 302
    limit = Limit.objects.get()
    wrong = admin_client.post(f"{page}/add/", asked | {"key": "d b", "max_running": "0"})
    assert "A key has up to 100" in wrong.content.decode()
    wrong = admin_client.post(f"{page}/{limit.pk}/change/", asked | {"max_running": "0"})
    assert "to hold a queue, pause it" in wrong.content.decode()
    admin_client.post(f"{page}/{limit.pk}/change/", {"max_running": "5"})
    limit.refresh_from_db()
    assert (limit.key, limit.max_running) == ("db", 5)
    assert "db" in admin_client.get(f"{page}/").content.decode()

    made = Queue.objects.create(name="etl")
    admin_client.post(f"/admin/jobs/queue/{made.pk}/change/", {"max_running": "4"})
    made.refresh_from_db()
    assert made.max_running == 4
    assert "etl" in admin_client.get("/admin/jobs/queue/").content.decode()
    admin_client.post(f"{page}/{limit.pk}/delete/", {"post": "yes"})
    assert not Limit.objects.exists()
    found = AuditEvent.objects.order_by("pk").values_list("action", "target")
    assert [*found] == [
        ("limit", f"limit {limit.pk}"), ("limit", f"limit {limit.pk}"),
        ("limit", f"queue {made.pk}"), ("unlimit", f"limit {limit.pk}"),
    ]  # fmt: skip


def test_why_a_task_waits_for_a_limit():
    worker = register()
    queue.limit_key("db", {"max_running": 1})
    queue.limit_key("mail*", {"rate_count": 1, "rate_seconds": 3600})
    tasks = submit(*[shell(key, concurrency_key=key) for key in ("db", "db", "mail1", "mail1")])
    queue.limit_queue("etl", 1)
    _, late = submit("1", "2", queue="etl")
    promote()
    claim(worker)

    assert why(tasks[1]) == "Limit db reached (1 of 1 queued or running)."
    assert why(tasks[3]).startswith("Rate of mail* reached, next at ")
    Task.objects.filter(job=late.job_id).update(updated_at="2020-01-01T00:00Z")
    assert why(late) == "Queue etl is at its limit."
    assert [(lane.full, lane.stuck) for lane in queueing()] == [(True, False)]
    Lease.objects.filter(pk=tasks[0].pk).delete()
    assert why(tasks[1]) == "It waits its turn among tasks of the key db."
