"""What must be refused: each answers a problem, and stores nothing."""

import json

import pytest

from jobs.api.payloads import MAX_ARGUMENT_BYTES
from jobs.models import Job, Lane, Task
from tests.api import JOB, Client, pointers, problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    yield Client("read", "submit", "operate")
    assert not Job.objects.exists()
    assert not Task.objects.exists()
    assert not Lane.objects.exists()


def job(**task):
    return {"name": "demo", "tasks": [{"payload": {"cmd": "true"}, **task}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"name": "demo", "tasks": [}',
        b'{"name": "x"} more',
        b"\xff\xfe",
        b'{"name": NaN}',
        b'{"name": Infinity}',
        b'{"name": -Infinity}',
        b'{"name": 1e400}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
    ],
)
def test_what_is_no_json_or_nests_too_deep(client, body):
    code = "parse_error" if body else "invalid"
    problem(client.send("/api/v1/jobs", body), 400, code)


def test_64_levels_are_read(client):
    answer = client.send("/api/v1/jobs", b"[" * 64 + b"]" * 64)
    assert pointers(problem(answer, 400, "invalid")) == ["#"]


@pytest.mark.parametrize("bad", [r"\u0000", r"a\u0000b", r"\ud800", r"\udc00\ud800"])
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ('{"name": "BAD", "tasks": [{"payload": {"cmd": "x"}}]}', "#/name"),
        ('{"name": "a", "tasks": [{"payload": {"cmd": "BAD"}}]}', "#/tasks/0/payload/cmd"),
        ('{"name": "a", "labels": {"l": "BAD"}, "tasks": []}', "#/labels/l"),
        (
            '{"name": "a", "tasks": [{"kind": "python", "payload": {"function": "a.b",'
            ' "kwargs": {"k": [1, "BAD"]}}}]}',
            "#/tasks/0/payload/kwargs/k/1",
        ),
    ],
)
def test_characters_that_cannot_be_stored(client, body, place, bad):
    document = problem(
        client.send("/api/v1/jobs", body.replace("BAD", bad).encode()), 400, "invalid"
    )
    assert pointers(document) == [place]
    assert document["errors"][0]["code"] in ("null_character", "lone_surrogate")


@pytest.mark.parametrize("bad", [r"\u0000", r"\ud800"])
def test_characters_that_cannot_be_stored_in_keys(client, bad):
    body = '{"name": "a", "labels": {"BAD": "x"}, "tasks": [{"payload": {"cmd": "x"}}]}'
    problem(client.send("/api/v1/jobs", body.replace("BAD", bad).encode()), 400, "invalid")


def test_escaped_backslashes_and_pairs_are_no_such_characters():
    from dtsproject.parsers import loads

    assert loads(rb'["\\u0000", "\\ud800", "\ud83d\ude00"]') == [r"\u0000", r"\ud800", "😀"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ([], "#"),
        (None, "#"),
        ("x", "#"),
        ({}, "#/name"),
        ({**JOB, "name": 5}, "#/name"),
        ({**JOB, "name": True}, "#/name"),
        ({**JOB, "name": None}, "#/name"),
        ({**JOB, "name": "  "}, "#/name"),
        ({**JOB, "name": "x" * 201}, "#/name"),
        ({**JOB, "queue": "a b"}, "#/queue"),
        ({**JOB, "queue": 7}, "#/queue"),
        ({**JOB, "queue": "q\n"}, "#/queue"),
        ({**JOB, "queue": "q" * 41}, "#/queue"),
        ({**JOB, "labels": {"a": 1}}, "#/labels/a"),
        ({**JOB, "labels": []}, "#/labels"),
        ({**JOB, "nope/no~": 1}, "#/nope~1no~0"),
        ({"name": "a", "tasks": []}, "#/tasks"),
        ({"name": "a", "tasks": {}}, "#/tasks"),
        ({"name": "a", "tasks": ["x"]}, "#/tasks/0"),
        ({"name": "a", "tasks": [{}]}, "#/tasks/0/payload"),
        (job(priority=101), "#/tasks/0/priority"),
        (job(priority=-101), "#/tasks/0/priority"),
        (job(priority="5"), "#/tasks/0/priority"),
        (job(priority=5.5), "#/tasks/0/priority"),
        (job(priority=True), "#/tasks/0/priority"),
        (job(priority=None), "#/tasks/0/priority"),
        (job(priorty=1), "#/tasks/0/priorty"),
        (job(kind="perl"), "#/tasks/0/kind"),
        (job(kind=["shell"]), "#/tasks/0/kind"),
        (job(kind="python"), "#/tasks/0/payload/cmd"),
        (job(requires="gpu"), "#/tasks/0/requires"),
        (job(requires=["a b"]), "#/tasks/0/requires/0"),
        (job(requires=["x" * 65]), "#/tasks/0/requires/0"),
        (job(requires=["gpu\n"]), "#/tasks/0/requires/0"),
        (job(requires=["mem_mb>=0"]), "#/tasks/0/requires/0"),
        (job(requires=["gpu", "mem_mb>2000"]), "#/tasks/0/requires/1"),
        (job(requires=["mem_mb>=1000000000000000"]), "#/tasks/0/requires/0"),
        (job(slots=0), "#/tasks/0/slots"),
        (job(slots=1001), "#/tasks/0/slots"),
        (job(slots="2"), "#/tasks/0/slots"),
        (job(run_after="2030-01-01T00:00:00"), "#/tasks/0/run_after"),
        (job(run_after="2030-13-01T00:00:00Z"), "#/tasks/0/run_after"),
        (job(run_after="0001-01-01T00:00:00+14:00"), "#/tasks/0/run_after"),
        (job(run_after=5), "#/tasks/0/run_after"),
        (job(timeout_seconds=0), "#/tasks/0/timeout_seconds"),
        (job(timeout_seconds=-1), "#/tasks/0/timeout_seconds"),
        (job(timeout_seconds=30 * 86400 + 1), "#/tasks/0/timeout_seconds"),
        (job(timeout_seconds=10**400), "#/tasks/0/timeout_seconds"),
        (job(timeout_seconds="5"), "#/tasks/0/timeout_seconds"),
        (job(max_retries=101), "#/tasks/0/max_retries"),
        (job(max_retries=-1), "#/tasks/0/max_retries"),
        (job(deadline_seconds=0), "#/tasks/0/deadline_seconds"),
        (job(deadline_seconds=-5), "#/tasks/0/deadline_seconds"),
        (job(deadline_seconds=30 * 86400 + 1), "#/tasks/0/deadline_seconds"),
        (job(deadline_seconds="5"), "#/tasks/0/deadline_seconds"),
        (job(retry="always"), "#/tasks/0/retry"),
        (job(retry={"retries": 3}), "#/tasks/0/retry/retries"),
        (job(retry={"backoff": "random"}), "#/tasks/0/retry/backoff"),
        (job(retry={"base_seconds": -1}), "#/tasks/0/retry/base_seconds"),
        (job(retry={"base_seconds": True}), "#/tasks/0/retry/base_seconds"),
        (job(retry={"ceiling_seconds": -0.1}), "#/tasks/0/retry/ceiling_seconds"),
        (job(retry={"ceiling_seconds": 31 * 86400}), "#/tasks/0/retry/ceiling_seconds"),
        (
            job(retry={"base_seconds": 9, "ceiling_seconds": 8}),
            "#/tasks/0/retry/ceiling_seconds",
        ),
        (job(retry={"retry_on": []}), "#/tasks/0/retry/retry_on"),
        (job(retry={"retry_on": 75}), "#/tasks/0/retry/retry_on"),
        (job(retry={"retry_on": [0]}), "#/tasks/0/retry/retry_on/0"),
        (job(retry={"retry_on": [75, 256]}), "#/tasks/0/retry/retry_on/1"),
        (job(retry={"fail_on": ["75"]}), "#/tasks/0/retry/fail_on/0"),
        (job(retry={"fail_on": [True]}), "#/tasks/0/retry/fail_on/0"),
        (job(retry={"fail_on": [None]}), "#/tasks/0/retry/fail_on/0"),
        (job(retry={"retry_on": [2, 75], "fail_on": [1, 75]}), "#/tasks/0/retry/fail_on/1"),
        (job(retry={"elsewhere": 1}), "#/tasks/0/retry/elsewhere"),
        (job(payload="echo"), "#/tasks/0/payload"),
        (job(payload={"cmd": ""}), "#/tasks/0/payload/cmd"),
        (job(payload={"cmd": " \n"}), "#/tasks/0/payload/cmd"),
        (job(payload={"cmd": 5}), "#/tasks/0/payload/cmd"),
        (job(payload={"cmd": "x", "shell": "zsh"}), "#/tasks/0/payload/shell"),
        (job(payload={"cmd": "x" * (MAX_ARGUMENT_BYTES + 1)}), "#/tasks/0/payload/cmd"),
        (job(payload={"cmd": "ü" * (MAX_ARGUMENT_BYTES // 2 + 1)}), "#/tasks/0/payload/cmd"),
        (job(payload={"cmd": "x", "env": {"A": 1}}), "#/tasks/0/payload/env/A"),
        (job(payload={"cmd": "x", "env": {"A=B": "1"}}), "#/tasks/0/payload/env"),
        (job(payload={"cmd": "x", "env": {"": "1"}}), "#/tasks/0/payload/env"),
        (job(payload={"cmd": "x", "cwd": ""}), "#/tasks/0/payload/cwd"),
        (job(payload={"cmd": "x", "stdin": 1}), "#/tasks/0/payload/stdin"),
        (job(kind="python", payload={"function": "f"}), "#/tasks/0/payload/function"),
        (job(kind="python", payload={"function": "a.b", "args": {}}), "#/tasks/0/payload/args"),
        (job(kind="python", payload={"function": "a.b", "kwargs": []}), "#/tasks/0/payload/kwargs"),
    ],
)
def test_bodies_that_are_no_job(client, body, place):
    document = problem(client.send("/api/v1/jobs", body), 400, "invalid")
    assert place in pointers(document)
    assert document["errors"][0]["detail"]


def test_a_size_that_is_none_is_told_how_one_is_written(client):
    document = problem(client.send("/api/v1/jobs", job(requires=["mem_mb>=x"])), 400, "invalid")
    assert "such as mem_mb>=2000" in document["detail"]
    problem(client.get("/api/v1/jobs/1"), 404, "not_found")


def test_every_fault_is_named_up_to_a_hundred(client):
    body = {"name": 1, "tasks": [{"payload": {"cmd": ""}, "priority": 500}] * 200}
    document = problem(client.send("/api/v1/jobs", body), 400, "invalid")
    assert pointers(document)[:3] == ["#/name", "#/tasks/0/payload/cmd", "#/tasks/0/priority"]
    assert len(document["errors"]) == 100
    assert "400 more" in document["detail"]


def test_the_unknown_field_is_told_what_there_is(client):
    document = problem(client.send("/api/v1/jobs", {**JOB, "task": []}), 400, "invalid")
    assert "name, queue, labels, unique, tasks" in document["errors"][0]["detail"]


def test_more_tasks_than_a_job_may_have(client, settings):
    settings.DTS = {**settings.DTS, "MAX_TASKS_PER_JOB": 2}
    document = problem(
        client.send("/api/v1/jobs", {"name": "a", "tasks": JOB["tasks"] * 3}), 400, "invalid"
    )
    assert pointers(document) == ["#/tasks"]
    assert "at most 2" in document["detail"]


def test_a_body_over_the_limit(client, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    body = {"name": "a", "tasks": JOB["tasks"] * 1000}
    problem(client.send("/api/v1/jobs", body), 413, "too_large")


def test_a_body_in_chunks_is_not_taken_for_an_empty_one(client):
    answer = client.send("/api/v1/jobs", JOB, HTTP_TRANSFER_ENCODING="chunked")
    problem(answer, 411, "length_required")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_json(client, media_type):
    answer = client.post("/api/v1/jobs", json.dumps(JOB), content_type=media_type)
    problem(answer, 415, "unsupported_media_type")


def test_more_combinations_of_requirements_than_there_may_be(client, monkeypatch):
    monkeypatch.setattr("jobs.submission.MAX_LANES", 1)
    body = {"name": "a", "tasks": [{**JOB["tasks"][0], "requires": [x]} for x in "ab"]}
    problem(client.send("/api/v1/jobs", body), 422, "too_many_lanes")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("nope=1", "nope"),
        ("limit=-1", "limit"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=abc", "limit"),
        ("limit=1.5", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=", "limit"),
        ("limit=5&limit=6", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=cD1hYmM%3D", "cursor"),
        ("status=bogus", "status"),
        ("status=done,bogus", "status"),
        ("status=done&status=", "status"),
        ("job=abc", "job"),
        ("job=1e400", "job"),
        ("job=" + "9" * 5000, "job"),
        ("job=1&job=2", "job"),
        ("worker=me", "worker"),
        ("name=a%00b", "name"),
        ("priority_min=high", "priority_min"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2030-01-01", "created_after"),
        ("created_after=2030-01-01T00:00:00", "created_after"),
    ],
)
def test_query_parameters_that_are_not_valid(client, query, parameter):
    document = problem(client.get(f"/api/v1/tasks?{query}"), 400, "invalid_query")
    assert [error["parameter"] for error in document["errors"]] == [parameter]


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/jobs/1", "/api/v1/tasks/1/log"])
def test_query_parameters_nobody_reads(client, path):
    problem(client.get(f"{path}?nope=1"), 400, "invalid_query")


@pytest.mark.parametrize("number", [10**18, 2**63, 10**30, "9" * 5000])
@pytest.mark.parametrize("path", ["jobs/{}", "jobs/{}/tasks", "tasks/{}", "tasks/{}/log"])
def test_ids_that_are_not_there(client, path, number):
    answer = client.get("/api/v1/" + path.format(number))
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["jobs/{}/cancel", "jobs/{}/retry", "tasks/{}/cancel"])
@pytest.mark.parametrize("number", [10**18, 2**63])
def test_verbs_on_ids_that_are_not_there(client, path, number):
    problem(client.send("/api/v1/" + path.format(number)), 404, "not_found")
