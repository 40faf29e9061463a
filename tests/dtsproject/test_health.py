from datetime import UTC, datetime

import pytest
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder
from prometheus_client.parser import text_string_to_metric_families

from dtsproject import health
from jobs import queue
from jobs.specs import TaskSpec
from tests.api import Client, problem
from tests.helpers import claim, promote, register, submit
from workers.models import State, Worker


@pytest.fixture(autouse=True)
def ready_not_seen():
    health._seen_applied.clear()
    yield
    health._seen_applied.clear()


def test_healthz_asks_no_database(django_db_blocker):
    with django_db_blocker.block():
        assert Client().get("/healthz").json() == {"status": "ok"}


@pytest.mark.django_db
def test_readyz():
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


@pytest.mark.django_db
def test_once_migrated_readyz_asks_one_query(django_assert_num_queries):
    Client().get("/readyz")
    with django_assert_num_queries(1):
        Client().get("/readyz")


@pytest.mark.django_db
def test_a_missing_migration_is_not_ready():
    MigrationRecorder.Migration.objects.filter(app="jobs").order_by("-pk").first().delete()
    answer = Client().get("/readyz")
    assert "migrate" in problem(answer, 503, "unavailable")["detail"]
    assert answer["Retry-After"]


@pytest.mark.django_db
def test_no_database_is_not_ready(monkeypatch):
    def fail(*args, **kwargs):
        raise OperationalError("away")

    monkeypatch.setattr("dtsproject.health.connection.cursor", fail)
    problem(Client().get("/readyz"), 503, "unavailable")


def samples():
    answer = Client("read").get("/metrics", HTTP_ACCEPT="text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


@pytest.mark.django_db
def test_metrics_count_what_is_there():
    worker = register(slots=3)
    submit("a", "b")
    promote()
    claim(worker, 1)
    submit("c", TaskSpec(payload={"cmd": "d"}, run_after=datetime(2099, 1, 1, tzinfo=UTC)))
    (held,) = submit("e")
    queue.pause_job(held.job_id)
    found = samples()
    states = ("pending", "deferred", "blocked", "queued", "in_progress")
    assert [found["dts_tasks", state] for state in states] == [1, 1, 1, 1, 1]
    assert found["dts_workers", "online"] == 1
    assert found["dts_workers", "lost"] == 0
    assert found["dts_slots",] == 3


@pytest.mark.django_db
def test_metrics_count_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(health, "COUNTED_UP_TO", 2)
    submit("a", "b", "c")
    assert samples()["dts_tasks", "pending"] == 2


@pytest.mark.django_db
def test_slots_are_those_that_can_be_filled():
    register("w1", slots=3)
    register("w2", slots=4)
    Worker.objects.filter(name="w2").update(state=State.CORDONED)
    assert samples()["dts_slots",] == 3


@pytest.mark.django_db
def test_metrics_scan_no_wide_table(django_assert_num_queries):
    submit("a")
    client = Client("read")
    client.get("/metrics")
    with django_assert_num_queries(8) as queries:
        client.get("/metrics")
    assert not any('FROM "tasks"' in query["sql"] for query in queries)
