"""What people see of the workers, and do to them."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.models import AuditEvent
from tests.api import Client, problem
from tests.helpers import claim, promote, register, submit

pytestmark = pytest.mark.django_db


def test_workers_are_shown_without_their_boot_ids():
    worker = register(capabilities=["gpu"])
    submit("a", "b")
    promote()
    claim(worker, 1)
    client = Client("read")
    (row,) = client.get("/api/v1/workers?state=online,lost").json()["results"]
    assert row == client.get(f"/api/v1/workers/{worker.pk}").json()
    assert (row["name"], row["running"], row["slots"]) == ("w1", 1, 10)
    assert row["capabilities"] == ["gpu"]
    assert str(worker.boot_id) not in str(row)
    assert client.get("/api/v1/workers?state=gone").json()["results"] == []
    assert client.get("/api/v1/workers?name=w1").json()["results"] == [row]
    problem(client.get("/api/v1/workers?state=asleep"), 400, "invalid_query")


def test_queries_do_not_grow_with_workers():
    client = Client("read")
    client.get("/api/v1/workers")
    counts = []
    for number in (1, 99):
        for n in range(number):
            register(f"w{number}-{n}")
        with CaptureQueriesContext(connection) as found:
            assert client.get("/api/v1/workers?limit=500").status_code == 200
        counts.append(len(found))
    assert counts == [2, 2]


def test_drain_cordon_uncordon():
    worker = register()
    client = Client("operate", name="ops")

    def operate(verb):
        return client.send(f"/api/v1/workers/{worker.pk}/{verb}")

    document = problem(operate("uncordon"), 409, "wrong_state")
    assert document["state"] == "online"
    assert operate("cordon").json()["state"] == "cordoned"
    problem(operate("cordon"), 409, "wrong_state")
    assert operate("uncordon").json()["state"] == "online"
    assert operate("drain").json()["state"] == "draining"
    problem(operate("drain"), 409, "wrong_state")
    problem(client.send(f"/api/v1/workers/{2**63}/drain"), 404, "not_found")
    events = AuditEvent.objects.order_by("pk").values_list("actor", "action", "target")
    assert list(events) == [
        ("ops", verb, f"worker {worker.pk}") for verb in ("cordon", "uncordon", "drain")
    ]
