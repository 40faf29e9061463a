"""Each door has a limit of its own, which is off unless it is set."""

import uuid

import pytest
from django.core.cache import cache

from tests.api import Client, problem
from tests.helpers import register

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_counted():
    cache.clear()


def limit(settings, **most):
    settings.DTS = {**settings.DTS, **most}


def calls(client, path, number):
    return [client.get(path) for _ in range(number)]


def test_nobody_is_held_up_by_default():
    assert {answer.status_code for answer in calls(Client("read"), "/api/v1/jobs", 50)} == {200}
    assert cache.get("door-client-token-1") is None


def test_a_client_run_wild_is_told_when_to_come_back(settings):
    limit(settings, CLIENT_CALLS_PER_MINUTE=3)
    wild, other = Client("read"), Client("read")
    *good, refused = calls(wild, "/api/v1/jobs", 4)
    assert {answer.status_code for answer in good} == {200}
    problem(refused, 429, "throttled")
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert other.get("/api/v1/jobs").status_code == 200


def test_the_doors_do_not_share_a_limit(settings):
    limit(settings, CLIENT_CALLS_PER_MINUTE=1)
    client, worker = Client("read", "work"), register()
    claim = {"boot_id": str(worker.boot_id), "limit": 1}
    path = f"/api/v1/workers/{worker.pk}"
    assert {client.send(f"{path}/claim", claim).status_code for _ in range(5)} == {200}
    assert [answer.status_code for answer in calls(client, path, 2)] == [200, 429]


def test_workers_may_have_one_too(settings):
    limit(settings, WORKER_CALLS_PER_MINUTE=1)
    client = Client("work")
    body = {"name": "w", "machine_id": "m", "slots": 1, "boot_id": str(uuid.uuid4())}
    assert client.send("/api/v1/workers", body).status_code == 201
    problem(client.send("/api/v1/workers", {**body, "name": "v"}), 429, "throttled")


def test_without_a_token_an_address_counts(settings):
    limit(settings, ANONYMOUS_ACCESS="trusted-network", CLIENT_CALLS_PER_MINUTE=1)
    for address in ("192.0.2.1", "192.0.2.2"):
        asked = [Client().get("/api/v1/jobs", REMOTE_ADDR=address) for _ in range(2)]
        assert [answer.status_code for answer in asked] == [200, 429]
