import base64

import pytest
from django.db import connection

from jobs import logs, queue
from jobs.models import AuditEvent, Task
from jobs.specs import LogPart
from jobs.states import Outcome
from tests.api import Client, problem
from tests.helpers import claim, ended, promote, register, running, shell, submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return Client("read", "operate", name="ci")


def ids(answer):
    assert answer.status_code == 200, answer.content
    return [task["id"] for task in answer.json()["results"]]


def test_the_columns_of_a_task(client):
    (task,) = submit("echo hi")
    found = client.get(f"/api/v1/tasks/{task.pk}").json()
    columns = (
        "id job_id priority status payload result_text assigned_worker_id retry_count max_retries "
        "created_at updated_at started_at completed_at"
    )
    assert set(columns.split()) <= set(found)
    assert (found["status"], found["payload"]) == ("pending", {"cmd": "echo hi"})


def test_status_may_be_listed_and_repeated(client):
    worker = register()
    tasks = submit("a", "b", "c", "d")
    promote()
    one, two, three = claim(worker, 3)
    queue.report([ended(one), ended(two, Outcome.FAILED)], worker_id=worker.pk)
    queue.cancel([tasks[3].pk])
    later = submit("e")[0]
    by = {
        "done": [one.task_id],
        "failed": [two.task_id],
        "in_progress": [three.task_id],
        "cancelled": [tasks[3].pk],
        "pending": [later.pk],
        "queued": [],
    }
    for status, expected in by.items():
        assert ids(client.get(f"/api/v1/tasks?status={status}")) == expected
    both = sorted(by["done"] + by["pending"], reverse=True)
    assert ids(client.get("/api/v1/tasks?status=done,pending")) == both
    assert ids(client.get("/api/v1/tasks?status=done&status=pending")) == both


def test_worker_reads_leases_and_attempts(client):
    one, two = register("w1"), register("w2")
    submit("a", "b", "c")
    promote()
    (released,) = claim(one, 1)
    queue.report([ended(released, Outcome.RELEASED)], worker_id=one.pk)
    claim(two, 1)
    (held,) = claim(one, 1)
    found = ids(client.get(f"/api/v1/tasks?worker={one.pk}"))
    assert found == sorted([released.task_id, held.task_id], reverse=True)
    assert ids(client.get(f"/api/v1/tasks?worker={two.pk}")) == [released.task_id]
    assert ids(client.get("/api/v1/tasks?worker=99999999999999999999")) == []


def test_other_filters(client):
    low = submit(shell("a", name="low", priority=1), queue="q1")[0]
    high = submit(shell("a", name="high", priority=9))[0]
    assert ids(client.get("/api/v1/tasks?name=low")) == [low.pk]
    assert ids(client.get("/api/v1/tasks?queue=q1")) == [low.pk]
    assert ids(client.get("/api/v1/tasks?priority_min=5")) == [high.pk]
    assert ids(client.get("/api/v1/tasks?priority_min=-99999999999999999999")) == [high.pk, low.pk]
    assert ids(client.get(f"/api/v1/tasks?job={low.job_id}")) == [low.pk]
    assert ids(client.get(f"/api/v1/tasks?job={2**70}")) == []
    after = high.created_at.isoformat().replace("+00:00", "Z")
    assert ids(client.get(f"/api/v1/tasks?created_after={after}")) == []
    assert ids(client.get(f"/api/v1/jobs/{low.job_id}/tasks?status=pending")) == [low.pk]


def test_done_tasks_are_found_by_index():
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
    tasks = Task.objects.in_status("done").order_by("-id")[:51]
    plan = tasks.explain()
    assert "tasks_final" in plan
    assert "Sort" not in plan


def test_cancel(client):
    (task,) = submit("a")
    answer = client.send(f"/api/v1/tasks/{task.pk}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    document = problem(client.send(f"/api/v1/tasks/{task.pk}/cancel"), 409, "wrong_state")
    assert document["state"] == "cancelled"
    assert "is cancelled" in document["detail"]
    events = AuditEvent.objects.values_list("actor", "action", "target")
    assert list(events) == [("ci", "cancel", f"task {task.pk}")]


def test_cancel_of_what_runs_is_a_wish(client):
    (held,) = running("sleep 9")
    found = client.send(f"/api/v1/tasks/{held.task_id}/cancel").json()
    assert found["status"] == "in_progress"
    assert found["cancel_requested_at"]


def test_retry(client):
    (task,) = submit("a")
    document = problem(client.send(f"/api/v1/tasks/{task.pk}/retry"), 409, "wrong_state")
    assert document["state"] == "pending"
    queue.cancel([task.pk])
    found = client.send(f"/api/v1/tasks/{task.pk}/retry").json()
    assert (found["status"], found["generation"]) == ("pending", 2)


def test_attempts(client):
    worker = register()
    (held,) = running("false", worker=worker)
    path = f"/api/v1/tasks/{held.task_id}/attempts"
    assert client.get(path).json()["results"] == []
    queue.report([ended(held, Outcome.FAILED, exit_code=3, error="no")], worker_id=worker.pk)
    (attempt,) = client.get(path).json()["results"]
    assert (attempt["outcome"], attempt["exit_code"], attempt["error"]) == ("failed", 3, "no")
    assert (attempt["worker_id"], attempt["number"]) == (worker.pk, 1)


# -- logs --------------------------------------------------------------------------------------


def write(worker, held, start, data, stream="stdout"):
    part = LogPart(
        task_id=held.task_id,
        fencing_token=held.fencing_token,
        stream=stream,
        start=start,
        data=data,
    )
    assert logs.append(worker.pk, [part]) == 1


def read(client, held, query=""):
    answer = client.get(f"/api/v1/tasks/{held.task_id}/log?{query}".rstrip("?"))
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_a_log_is_followed_by_its_offset(client):
    worker = register()
    (held,) = running("x", worker=worker)
    assert read(client, held) == {
        "attempt": 1,
        "stream": "stdout",
        "encoding": "utf-8",
        "data": "",
        "next": 0,
        "ended": False,
        "status": "in_progress",
    }
    write(worker, held, 0, b"one\n")
    write(worker, held, 0, b"oops\n", stream="stderr")
    part = read(client, held)
    assert (part["data"], part["next"], part["ended"]) == ("one\n", 4, False)
    write(worker, held, 4, b"two\n")
    assert read(client, held, "after=4")["data"] == "two\n"
    assert read(client, held, "stream=stderr")["data"] == "oops\n"
    queue.report([ended(held)], worker_id=worker.pk)
    last = read(client, held, "after=8")
    assert (last["data"], last["next"], last["ended"]) == ("", 8, True)


def test_a_character_cut_in_two_waits_for_its_rest(client):
    worker = register()
    (held,) = running("x", worker=worker)
    write(worker, held, 0, "ä".encode()[:1])
    part = read(client, held)
    assert (part["data"], part["next"]) == ("", 0)
    write(worker, held, 1, "ä".encode()[1:])
    part = read(client, held)
    assert (part["data"], part["next"], part["encoding"]) == ("ä", 2, "utf-8")


def test_bytes_that_are_no_text_come_as_base64(client):
    worker = register()
    (held,) = running("x", worker=worker)
    write(worker, held, 0, b"\xff\x00a")
    part = read(client, held)
    assert part["encoding"] == "base64"
    assert base64.b64decode(part["data"]) == b"\xff\x00a"


def test_long_logs_come_in_parts_and_end_with_the_last(client):
    worker = register()
    (held,) = running("x", worker=worker)
    for start in range(0, 150_000, 50_000):
        write(worker, held, start, b"x" * 50_000)
    queue.report([ended(held)], worker_id=worker.pk)
    size, after, ended_, parts = 0, 0, False, 0
    while not ended_:
        part = read(client, held, f"after={after}")
        size, after, ended_, parts = (
            size + len(part["data"]),
            part["next"],
            part["ended"],
            parts + 1,
        )
    assert size == after == 150_000
    assert parts > 1


def test_each_attempt_has_its_log(client):
    worker = register()
    (first,) = running("x", worker=worker)
    write(worker, first, 0, b"first")
    queue.report([ended(first, Outcome.RELEASED)], worker_id=worker.pk)
    (second,) = claim(worker)
    write(worker, second, 0, b"second")
    assert read(client, second)["data"] == "second"
    found = read(client, second, "attempt=1")
    assert (found["data"], found["ended"]) == ("first", True)
    problem(client.get(f"/api/v1/tasks/{second.task_id}/log?attempt=3"), 404, "not_found")


def test_the_log_of_what_never_ran(client):
    (task,) = submit("x")
    path = f"/api/v1/tasks/{task.pk}/log"
    assert client.get(path).json()["ended"] is False
    queue.cancel([task.pk])
    assert client.get(path).json()["ended"] is True


@pytest.mark.parametrize("query", ["after=-1", "after=x", "stream=stdlog", "attempt=0", "after="])
def test_log_parameters_that_are_not_valid(client, query):
    (task,) = submit("x")
    problem(client.get(f"/api/v1/tasks/{task.pk}/log?{query}"), 400, "invalid_query")


# -- bytes -------------------------------------------------------------------------------------

BYTES = "application/octet-stream"


@pytest.fixture
def printed(client):
    """Asks for the bytes of an attempt that runs and has printed these."""
    worker = register()
    (held,) = running("x", worker=worker)
    for start, data in ((0, b"0123\xff\x00"), (6, b"6789")):
        write(worker, held, start, data)

    def ask(wanted=None, query="", **headers):
        headers |= {"HTTP_RANGE": wanted} if wanted else {}
        return client.get(f"/api/v1/tasks/{held.task_id}/log{query}", HTTP_ACCEPT=BYTES, **headers)

    ask.end = lambda: queue.report([ended(held)], worker_id=worker.pk)
    return ask


def test_a_log_is_had_as_bytes(printed):
    answer = printed()
    assert (answer.status_code, answer.content) == (200, b"0123\xff\x006789")
    assert (answer["Content-Type"], answer["Accept-Ranges"]) == (BYTES, "bytes")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert printed(query="?stream=stderr").content == b""
    problem(printed(query="?after=3"), 400, "invalid_query")
    problem(printed(query="?attempt=9"), 404, "not_found")


@pytest.mark.parametrize(
    ("wanted", "data", "place"),
    [
        ("bytes=0-3", b"0123", "0-3"),
        ("bytes=4-", b"\xff\x006789", "4-9"),
        ("bytes=8-999999999999", b"89", "8-9"),
        ("bytes=-2", b"89", "8-9"),
        ("bytes=-99", b"0123\xff\x006789", "0-9"),
        ("bytes=9-9", b"9", "9-9"),
    ],
)
def test_a_range_of_bytes(printed, wanted, data, place):
    answer = printed(wanted)
    assert (answer.status_code, answer.content) == (206, data)
    assert answer["Content-Range"] == f"bytes {place}/*"
    printed.end()
    assert printed(wanted)["Content-Range"] == f"bytes {place}/10"


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=99-100", "bytes=-0", "bytes=3-2"])
def test_a_range_that_holds_nothing(printed, wanted):
    answer = printed(wanted)
    if wanted == "bytes=3-2":  # no range at all
        assert answer.status_code == 200
        return
    problem(answer, 416, "range_not_satisfiable")
    assert answer["Content-Range"] == "bytes */10"


@pytest.mark.parametrize("wanted", ["bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=x-1", "0-1"])
def test_a_range_of_another_form_is_ignored(printed, wanted):
    assert (printed(wanted).status_code, len(printed(wanted).content)) == (200, 10)
    assert printed("bytes=0-1", HTTP_IF_RANGE='"v1"').status_code == 200


def test_the_json_of_a_log_says_how_its_task_is(client):
    worker = register()
    (held,) = running("x", worker=worker)
    assert read(client, held)["status"] == "in_progress"
    queue.report([ended(held, Outcome.RELEASED)], worker_id=worker.pk)
    part = read(client, held)
    assert (part["ended"], part["status"]) == (True, "queued")
