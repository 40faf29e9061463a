"""dts_client against a real server, with a real scheduler and worker behind it."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dts_client
from dts_client import ApiError, Client, Unreachable
from dtsproject.chaos.fleet import free_port
from tests.client.relay import relay

DOCS = (Path(__file__).parents[2] / "docs" / "client.md").read_text()


@pytest.fixture
def between(dts):
    with relay(dts.port) as made:
        yield made


def names(client):
    return [job["name"] for job in client.jobs()]


def test_submits_and_waits(client):
    later = {"payload": {"cmd": "echo two >&2; exit 3"}, "priority": -5, "name": "second"}
    job = client.submit("mixed", ["echo one", later], queue="q", labels={"team": "ops"})
    assert (job["name"], job["queue"], job["labels"]) == ("mixed", "q", {"team": "ops"})

    job = client.wait(job, timeout=60)

    assert (job["state"], job["counts"]["done"], job["counts"]["failed"]) == ("failed", 1, 1)
    second, first = client.tasks(job)
    assert (first["result_text"], second["name"], second["exit_code"]) == ("one\n", "second", 3)
    assert client.task(first) == {**first, "depends_on": []}
    (attempt,) = client.attempts(second)
    assert (attempt["outcome"], attempt["number"]) == ("failed", 1)


def test_joins_the_job_that_holds_its_unique_key(client):
    idle = {"payload": {"cmd": "true"}, "requires": ["nobody"]}
    unique = {"key": "client", "on_duplicate": "join"}
    first = client.submit("first", [idle], unique=unique)
    assert client.submit("second", [idle, idle], unique=unique) == client.job(first)
    with pytest.raises(ApiError, match=f"Job {first['id']} holds") as refused:
        client.submit("third", [idle], unique={"key": "client"})
    assert (refused.value.code, refused.value.document["job_id"]) == ("duplicate", first["id"])
    client.cancel_job(first)


def test_does_things_to_all_that_match_and_waits_for_them(client, dts):
    dts.recovery()
    idle = {"payload": {"cmd": "true"}, "requires": ["nobody"]}
    job = client.submit("many", [idle] * 10_001, queue="many")
    assert client.operate("cancel", filter={"queue": "many"}, dry_run=True)["total"] == 10_001
    assert client.cancel_job(job)["counts"]["cancelled"] == 10_001
    one = client.submit("one", [idle], queue="many")
    operation = client.operate("cancel", filter={"queue": "many"})
    assert client.wait_for_operation(operation)["done"] == 1
    assert client.job(one)["state"] == "cancelled"


def test_what_people_do_to_jobs_and_tasks(client):
    idle = {"payload": {"cmd": "true"}, "requires": ["nobody"]}
    job = client.submit("idle", [idle, idle])
    assert client.prioritise_job(job, 7)["id"] == job["id"]
    task, _ = client.tasks(job)
    assert (task["priority"], client.prioritise_task(task, 8)["priority"]) == (7, 8)
    assert client.cancel_task(task)["status"] == "cancelled"
    assert client.retry_task(task)["status"] == "pending"
    assert client.cancel_job(job)["state"] == "cancelled"
    assert client.retry_job(job["id"])["counts"]["pending"] == 2
    clone = client.clone_job(job)
    assert (clone["name"], clone["id"] != job["id"]) == ("idle", True)
    for each in (job, clone):
        client.cancel_job(each)


def test_lists_are_read_page_by_page(client, monkeypatch):
    monkeypatch.setattr(dts_client, "PAGE", 2)
    job = client.submit("pages", ["true"] * 5)

    ids = [task["id"] for task in client.tasks(job)]

    assert (len(ids), ids) == (5, sorted(ids, reverse=True))
    assert [found["id"] for found in client.jobs(name="pages")] == [job["id"]]
    client.wait(job, timeout=60)
    assert list(client.tasks(job, status=["failed", "cancelled"])) == []
    assert len(list(client.tasks(job, status=["failed", "done"]))) == 5


def test_output_is_followed_as_it_comes(client):
    job = client.submit("talk", ["printf one; sleep 2; printf '\\377'; printf two"])
    (task,) = client.tasks(job)

    pieces = client.follow(task)

    assert next(pieces) == b"one"
    assert client.task(task)["status"] == "in_progress"
    assert b"".join(pieces) == b"\xfftwo"
    assert client.task(task)["status"] == "done"


def test_a_task_is_followed_through_its_retries(client):
    cmd = "echo $DTS_ATTEMPT; echo no >&2; [ $DTS_ATTEMPT = 2 ]"
    job = client.submit("again", [{"payload": {"cmd": cmd}, "max_retries": 1}])
    (task,) = client.tasks(job)

    assert b"".join(client.follow(task)) == b"1\n2\n"
    assert list(client.output(task, 1, "stderr")) == [b"no\n"]


def test_one_that_never_ran_has_no_output(client):
    job = client.submit("never", [{"payload": {"cmd": "echo"}, "requires": ["nobody"]}])
    client.cancel_job(job)
    (task,) = client.tasks(job)
    assert list(client.follow(task)) == []


def test_a_refusal_says_what_and_where(client):
    with pytest.raises(ApiError, match="#/tasks/0/priority") as refused:
        client.submit("bad", [{"payload": {"cmd": "x"}, "priority": 500}])
    error = refused.value
    assert (error.status, error.code) == (400, "invalid")
    assert error.errors[0]["pointer"] == "#/tasks/0/priority"
    assert error.request_id == error.document["request_id"] != ""
    with pytest.raises(ApiError) as refused:
        client.job(10**9)
    assert (refused.value.status, refused.value.code) == (404, "not_found")


def test_a_token_opens_what_its_scopes_say(url, token):
    client = Client(f"{url}/", token)
    job = client.submit("mine", ["true"])
    assert job["submitted_by"] == "ci"
    with pytest.raises(ApiError) as refused:
        client.cancel_job(job)
    assert refused.value.code == "scope_missing"
    with pytest.raises(ApiError) as refused:
        Client(url, token[:-1] + "x").job(job)
    assert refused.value.code == "authentication_failed"


def test_waiting_ends_with_its_time(client):
    job = client.submit("long", ["sleep 60"])
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="after 1 s"):
        client.wait(job, timeout=1)
    assert 1 <= time.monotonic() - began < 10
    client.cancel_job(job)
    assert client.wait(job, timeout=60)["state"] == "cancelled"


# -- a bad connection -------------------------------------------------------------------------


def test_a_submit_whose_answer_was_lost_makes_one_job(between):
    client = Client(between.url)
    between.faults = ["lost", "dropped"]

    job = client.submit("once", ["true"])

    assert between.seen == ["POST /api/v1/jobs"] * 3
    assert [found["id"] for found in client.jobs(name="once")] == [job["id"]]
    between.faults = ["lost"]
    clone = client.clone_job(job)
    assert {found["id"] for found in client.jobs(name="once")} == {job["id"], clone["id"]}


def test_a_key_of_ones_own_names_one_job(client):
    first, again = (client.submit("keyed", ["true"], idempotency_key="k1") for _ in range(2))
    assert first == again
    with pytest.raises(ApiError) as refused:
        client.submit("keyed", ["false"], idempotency_key="k1")
    assert refused.value.code == "idempotency_key_reused"
    with pytest.raises(ApiError) as refused:
        client.submit("keyed", ["true"], idempotency_key="")
    assert refused.value.code == "invalid_idempotency_key"


def test_what_may_not_be_repeated_is_asked_once(between, client):
    job = client.submit("hands-off", [{"payload": {"cmd": "x"}, "requires": ["nobody"]}])
    between.faults = ["lost"]
    with pytest.raises(Unreachable):
        Client(between.url).cancel_job(job)
    between.faults = ["later"]
    with pytest.raises(ApiError, match="503"):
        Client(between.url).retry_job(job)
    assert len(between.seen) == 2
    assert client.job(job)["state"] == "cancelled"


def test_later_is_obeyed(between):
    between.faults = ["later"]
    began = time.monotonic()

    Client(between.url).submit("patient", ["true"])

    assert time.monotonic() - began >= 1
    between.faults = ["later"]
    with pytest.raises(ApiError) as refused:
        Client(between.url, patience=0.5).submit("hasty", ["true"])
    assert refused.value.status == 503


def test_waiting_and_following_outlast_an_outage(between, client):
    job = client.submit("outage", ["echo a; sleep 1; echo b"])
    (task,) = client.tasks(job)
    impatient = Client(between.url, patience=0)
    between.faults = ["dropped", "dropped", "later"]
    assert b"".join(impatient.follow(task)) == b"a\nb\n"
    between.faults = ["dropped", "later"]
    assert impatient.wait(job)["state"] == "done"


def test_nobody_there_is_said_when_patience_ends():
    began = time.monotonic()
    with pytest.raises(Unreachable, match="refused"):
        Client(f"http://127.0.0.1:{free_port()}", patience=0.5).job(1)
    assert 0.5 <= time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "/x"])
def test_what_is_no_url(url):
    with pytest.raises(ValueError, match="is no URL"):
        Client(url)


@pytest.mark.parametrize("token", ["dts_a\nX-Other: 1", "dts_ü"])
def test_what_is_no_token(token):
    with pytest.raises(ValueError, match="no token"):
        Client("http://localhost", token)


# -- what it is -------------------------------------------------------------------------------


def test_a_copy_of_the_file_works_alone(url, tmp_path):
    shutil.copy(dts_client.__file__, tmp_path / "dts_client.py")
    program = (
        "import sys; sys.path.insert(0, '.'); from dts_client import Client\n"
        f"dts = Client({url!r}); print(dts.wait(dts.submit('copied', ['true']))['state'])"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("done\n", "")


def test_the_examples_of_its_documentation(url, token, capsys):
    examples = "".join(re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL))
    examples = examples.replace("http://localhost:8080", url).replace(', token="dts_..."', "")
    assert examples.count("dts.") > 10

    exec(compile(examples, "docs/client.md", "exec"), {})  # noqa: S102 - our own

    printed = capsys.readouterr().out
    assert printed.startswith("done {")
    assert "#/tasks/0/priority" in printed
