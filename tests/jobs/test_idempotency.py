"""A submit that is sent again with its Idempotency-Key makes no second job."""

import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from jobs import intake
from jobs.models import IdempotencyKey, Job, Task
from tests.api import JOB, Client, problem
from tests.helpers import keys_locked, wait_until

pytestmark = pytest.mark.django_db
PATH = "/api/v1/jobs"


@pytest.fixture
def client():
    return Client("read", "submit")


def send(client, key, body=JOB):
    return client.send(PATH, body, HTTP_IDEMPOTENCY_KEY=key)


def test_a_repeat_is_answered_as_the_first_time(client):
    first = send(client, "k1")
    Task.objects.update(priority=5)

    again = send(client, "k1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again["Location"] == first["Location"]
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert Job.objects.count() == 1
    assert first.json().items() >= client.get(first["Location"]).json().items()


def test_the_first_answer_stands_though_the_job_has_moved_on(client):
    first = send(client, "k1").json()
    Job.objects.all().delete()

    assert send(client, "k1").json() == first


def test_the_same_body_may_be_spelt_otherwise(client):
    body = b'{"tasks": [{"payload": {"cmd": "true"}}],\n "name": "demo"}'
    first = send(client, "k1")

    assert send(client, '"k1"', body).json() == first.json()


def test_another_body_is_refused(client):
    made = send(client, "k1").json()

    document = problem(send(client, "k1", {**JOB, "name": "other"}), 422, "idempotency_key_reused")

    assert document["job_id"] == made["id"]
    assert Job.objects.count() == 1


def test_keys_of_others_are_others(client):
    send(client, "k1")

    assert "Idempotent-Replayed" not in send(Client("submit"), "k1")
    assert "Idempotent-Replayed" not in send(client, "k2")
    assert Job.objects.count() == 3


def test_a_submit_that_was_refused_keeps_no_key(client, monkeypatch):
    monkeypatch.setattr("jobs.submission.MAX_LANES", 0)
    needy = {"name": "a", "tasks": [{**JOB["tasks"][0], "requires": ["gpu"]}]}
    problem(send(client, "k1", needy), 422, "too_many_lanes")
    problem(send(client, "k1", {"name": "a"}), 400, "invalid")
    assert not IdempotencyKey.objects.exists()
    monkeypatch.undo()

    assert send(client, "k1", needy).status_code == 201


def test_a_repeat_is_answered_though_too_much_waits(client, settings, monkeypatch):
    settings.DTS = {**settings.DTS, "MAX_BACKLOG": 1}
    monkeypatch.setattr("jobs.intake.backlog", type(intake.backlog)())
    send(client, "k1")

    problem(send(client, "k2"), 429, "overloaded")
    assert send(client, "k1")["Idempotent-Replayed"] == "true"
    assert IdempotencyKey.objects.count() == 1


@pytest.mark.parametrize("key", ["", '""', "x" * 256, 'a"b', '"a', "a b", "ü", "a\\b", "a\x00"])
def test_keys_that_are_none(client, key):
    problem(send(client, key), 400, "invalid_idempotency_key")
    assert not Job.objects.exists()


def test_the_command_takes_a_key(capsys):
    for _ in range(2):
        call_command("submit", "true", "--idempotency-key", "k1")
    first, again = capsys.readouterr().out.split()
    assert first == again
    with pytest.raises(CommandError, match="another body") as refused:
        call_command("submit", "false", "--idempotency-key", "k1")
    assert refused.value.returncode == 2
    with pytest.raises(CommandError, match="printable ASCII") as refused:
        call_command("submit", "true", "--idempotency-key", "")
    assert refused.value.returncode == 2
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_job_of_many_batches_and_a_new_lane_takes_a_key(client, monkeypatch):
    monkeypatch.setattr("jobs.submission.BATCH", 1)
    body = {"name": "a", "tasks": [{**JOB["tasks"][0], "requires": ["gpu"]}] * 3}
    first, again = send(client, "k1", body), send(client, "k1", body)
    assert (first.status_code, first.json()) == (201, again.json())
    assert first.json().items() >= client.get(first["Location"]).json().items()
    assert (Job.objects.count(), Task.objects.count()) == (1, 3)


@pytest.mark.django_db(transaction=True)
def test_all_at_once_make_one_job(client):
    """Whoever comes while the first is under way is told so, and finds its answer later."""
    callers, answers = 6, []
    barrier = threading.Barrier(callers)

    def call():
        mine = Client()
        mine.credentials(**client._credentials)
        barrier.wait()
        try:
            while (answer := send(mine, "k1")).status_code == 409:
                problem(answer, 409, "idempotency_key_in_use")
                assert int(answer["Retry-After"]) > 0
            answers.append((answer.status_code, answer.json()["id"]))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [(201, Job.objects.get().pk)] * callers


@pytest.mark.django_db(transaction=True)
def test_one_under_way_is_told_by_name(client):
    """The first submit is held up at its last statement, by a lock on the table of keys."""
    first = {}

    def call():
        mine = Client()
        mine.credentials(**client._credentials)
        first["answer"] = send(mine, "k1")
        connections.close_all()

    thread = threading.Thread(target=call)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '5s'")  # rather than wait for what we hold ourselves
    with keys_locked() as waiting:
        thread.start()
        wait_until(waiting)
        problem(send(client, "k1"), 409, "idempotency_key_in_use")
        assert send(client, "k2", {}).status_code == 400
    thread.join(20)
    assert first["answer"].status_code == 201
    assert send(client, "k1").json() == first["answer"].json()
    assert Job.objects.count() == 1
    connection.close()
