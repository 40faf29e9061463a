"""Jobs that come line by line (NDJSON): read as a stream, stored whole or not at all."""

import json
import threading
import time

import pytest
from django.db import connection, connections

from dtsproject.postgresql.base import Connection
from jobs.models import Job, Lane, Task
from jobs.spooled import Spooled
from jobs.submission import MOST_UNDER_WAY
from tests.api import Client, problem
from tests.helpers import wait_until

pytestmark = pytest.mark.django_db
HEAD = {"name": "demo"}
TASK = {"payload": {"cmd": "true"}}


@pytest.fixture
def client():
    return Client("read", "submit")


def lines(*values) -> bytes:
    return b"".join(v if isinstance(v, bytes) else json.dumps(v).encode() + b"\n" for v in values)


def send(client, *values, **headers):
    kind = headers.pop("kind", "application/x-ndjson")
    return client.post("/api/v1/jobs", lines(*values), content_type=kind, **headers)


def test_a_job_comes_line_by_line(client, monkeypatch):
    monkeypatch.setattr("jobs.api.lines.BATCH", 2)
    monkeypatch.setattr("jobs.api.lines.CHUNK_BYTES", 10)
    monkeypatch.setattr("jobs.submission.MOST_UNDER_WAY", 1)
    python = {"kind": "python", "payload": {"function": "a.b", "args": [1, None]}}
    later = {**TASK, "run_after": "2099-01-01T00:00:00Z", "requires": ["gpu", "eu"]}
    many = [{**TASK, "name": f"n{n}", "priority": n} for n in range(4)]

    answer = send(
        client, {**HEAD, "queue": "q", "labels": {"a": "b"}}, python, b"\n  \r\n", later, *many
    )

    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert (made["queue"], made["labels"], made["counts"]["pending"]) == ("q", {"a": "b"}, 6)
    first, second, *rest = Task.objects.filter(job=made["id"]).order_by("pk")
    assert (first.kind, first.payload) == ("python", python["payload"])
    assert (second.run_after.year, set(second.requires)) == (2099, {"gpu", "eu"})
    assert [(task.name, task.priority) for task in rest] == [(f"n{n}", n) for n in range(4)]
    (warning,) = made.pop("warnings")
    assert (warning["pointer"], warning["tasks"]) == ("#/tasks/1", 1)
    assert client.get(answer["Location"]).json() == made


@pytest.mark.parametrize("kind", ["application/x-ndjson; charset=utf-8", "Application/X-NDJSON"])
def test_a_last_line_needs_no_end(client, kind):
    answer = send(client, HEAD, lines(TASK).rstrip(), kind=kind)
    assert answer.json()["counts"]["pending"] == 1


@pytest.mark.parametrize(
    ("body", "line", "pointer", "code"),
    [
        ([], 1, "#", "empty"),
        ([b"\n\n"], 1, "#", "empty"),
        ([HEAD], 1, "#", "empty"),
        ([{"queue": "q"}, TASK], 1, "#/name", "required"),
        ([{**HEAD, "tasks": [TASK]}, TASK], 1, "#/tasks", "unknown"),
        ([[], TASK], 1, "#", "invalid"),
        ([HEAD, TASK, TASK, {**TASK, "priority": 500}], 4, "#/priority", "max_value"),
        ([HEAD, b"\n", TASK, {"payload": {}}], 4, "#/payload/cmd", "required"),
        ([HEAD, TASK, b"{\n"], 3, "#", "parse_error"),
        ([HEAD, b'{"a": "\xff"}'], 2, "#", "parse_error"),
        ([HEAD, b"[" * 100_000], 2, "#", "parse_error"),
        ([HEAD, b'{"payload": {"cmd": "\\u0000"}}\n'], 2, "#/payload/cmd", "null_character"),
        ([HEAD, b"null\n"], 2, "#", "null"),
        ([HEAD, TASK, HEAD], 3, "#/name", None),
    ],
)
def test_a_fault_is_named_by_its_line(client, monkeypatch, body, line, pointer, code):
    monkeypatch.setattr("jobs.api.lines.BATCH", 1)
    document = problem(send(client, *body), 400, "invalid")
    (error, *_) = document["errors"]
    assert (error["line"], error["pointer"]) == (line, pointer) or code is None
    assert error["code"] == (code or error["code"])
    assert document["detail"].startswith(f"line {line}, ")
    assert not Job.objects.exists()
    assert not Lane.objects.exists()


def test_faults_are_gathered_up_to_a_hundred(client):
    bad = {**TASK, "priority": 500}
    document = problem(send(client, {}, bad, TASK, bad), 400, "invalid")
    assert [error["line"] for error in document["errors"]] == [1, 2, 4]
    document = problem(send(client, HEAD, *[bad] * 200), 400, "invalid")
    assert [error["line"] for error in document["errors"]] == list(range(2, 102))
    document = problem(send(client, HEAD, dict.fromkeys(map(str, range(300)))), 400, "invalid")
    assert len(document["errors"]) == 100


def test_there_is_an_end_to_it(client, settings, monkeypatch):
    settings.DTS = {**settings.DTS, "MAX_TASKS_PER_STREAM": 3}
    assert send(client, HEAD, *[TASK] * 3).status_code == 201
    document = problem(send(client, HEAD, *[TASK] * 4), 400, "invalid")
    assert document["errors"][0]["code"] == "max_length"
    monkeypatch.setattr("jobs.api.lines.MAX_LINE_BYTES", 100)
    monkeypatch.setattr("jobs.api.lines.CHUNK_BYTES", 10)
    problem(send(client, HEAD, {"payload": {"cmd": "x" * 200}}), 413, "too_large")
    monkeypatch.setattr("jobs.api.lines.MAX_BYTES", 10)
    problem(send(client, HEAD, TASK), 413, "too_large")
    assert Job.objects.count() == 1


def test_more_tasks_than_json_may_have(client, settings):
    settings.DTS = {**settings.DTS, "MAX_TASKS_PER_JOB": 2}
    body = {**HEAD, "tasks": [TASK] * 3}
    problem(client.send("/api/v1/jobs", body), 400, "invalid")

    made = send(client, HEAD, *[TASK] * 3).json()

    clone = client.send(f"/api/v1/jobs/{made['id']}/clone").json()
    assert (made["counts"]["pending"], clone["counts"]["pending"]) == (3, 3)


def test_a_key_names_one_job(client):
    first, again = (send(client, HEAD, TASK, HTTP_IDEMPOTENCY_KEY="k1") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.json(), again["Idempotent-Replayed"]) == (first.json(), "true")
    other = send(client, HEAD, TASK, TASK, HTTP_IDEMPOTENCY_KEY="k1")
    problem(other, 422, "idempotency_key_reused")
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_breaks_off_leaves_nothing(client, monkeypatch):
    whole = Spooled.batches

    def breaking(self):
        yield next(whole(self))
        raise OSError("the disk is gone")

    monkeypatch.setattr("jobs.api.lines.BATCH", 1)
    monkeypatch.setattr(Spooled, "batches", breaking)
    assert send(client, HEAD, TASK, TASK).status_code == 500
    assert not Job.objects.exists()
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_no_more_is_sent_than_the_database_keeps_up_with(client, monkeypatch):
    """What it has not answered is kept in memory. Here it stores nothing, for a lock."""
    whole, taken = Spooled.batches, []

    def batches(self):
        for batch in whole(self):
            taken.append(batch)
            yield batch

    monkeypatch.setattr("jobs.api.lines.BATCH", 1)
    answers = []

    def call():
        answers.append(send(client, HEAD, *[TASK] * 20))
        connections.close_all()

    send(client, HEAD, TASK)  # makes the lane
    monkeypatch.setattr(Spooled, "batches", batches)
    thread = threading.Thread(target=call)
    with Connection.connect(**connection.get_connection_params()) as held:
        held.execute("LOCK TABLE waiting IN SHARE MODE")
        thread.start()
        blocked = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'waiting'::regclass"
        wait_until(lambda: held.execute(blocked).rowcount)
        time.sleep(0.3)
        assert len(taken) == MOST_UNDER_WAY
    thread.join(20)
    assert answers[0].json()["counts"]["pending"] == 20


def test_other_routes_take_no_lines(client):
    made = send(client, HEAD, TASK).json()
    path = f"/api/v1/jobs/{made['id']}/clone"
    answer = client.post(path, lines(HEAD), content_type="application/x-ndjson")
    problem(answer, 415, "unsupported_media_type")


def test_some_at_once_and_the_others_later(client, monkeypatch):
    places = threading.BoundedSemaphore(1)
    monkeypatch.setattr("jobs.api.lines.places", places)
    with places:
        refused = send(client, HEAD, TASK)
        problem(refused, 429, "overloaded")
        assert int(refused["Retry-After"]) > 0
    assert [send(client, HEAD, *more).status_code for more in ([], [TASK], [TASK])] == [
        400,
        201,
        201,
    ]
