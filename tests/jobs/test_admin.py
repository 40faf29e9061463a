"""The pages of jobs, tasks and attempts, and what people may do there."""

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dtsproject import admin_base
from dtsproject.bounded import Count
from jobs import logs, queue, statements
from jobs.counts import progress
from jobs.models import Attempt, AuditEvent, Job, LogChunk, Task, Token
from jobs.specs import LogPart, TaskSpec
from jobs.states import Outcome, Status
from tests.helpers import claim, ended, promote, register, running, shell, submit

pytestmark = pytest.mark.django_db

JOBS, TASKS, ATTEMPTS = "/admin/jobs/job/", "/admin/jobs/task/", "/admin/jobs/attempt/"
TOKENS = "/admin/jobs/token/"


def text(response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def act(client: Client, url: str, action: str, *ids: int, **more):
    """Runs an action as the list's form does; the page that answers."""
    data = {"action": action, "_selected_action": [str(pk) for pk in ids], **more}
    return client.post(url, data, follow=True)


def queries(client: Client, url: str) -> int:
    client.get(url)  # what is looked up once a process, such as content types
    with CaptureQueriesContext(
        connection,
    ) as found:
        assert client.get(url).status_code == 200
    return len(found)


def person(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("eve", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def some_of_each(worker) -> None:
    """Seven tasks, in every state, with attempts and output."""
    submit(*[shell(f"run {n}", name=f"t{n}") for n in range(4)], "one more", "two more")
    promote()
    first, second, third = claim(worker, 3)
    logs.append(worker.pk, [part(first, b"hello\n")])
    queue.report([ended(first), ended(second, Outcome.FAILED, exit_code=1, error="no such file")])
    queue.cancel([third.task_id, Task.objects.latest("pk").pk])


def part(claimed, data: bytes, *, stream: str = "stdout", start: int = 0) -> LogPart:
    return LogPart(
        task_id=claimed.task_id,
        fencing_token=claimed.fencing_token,
        stream=stream,
        start=start,
        data=data,
    )


# -- cost ------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [JOBS, TASKS, ATTEMPTS, TASKS + "?status=failed"])
def test_a_list_asks_as_often_for_one_row_as_for_two_hundred(admin_client, url):
    worker = register(slots=100)
    some_of_each(worker)
    before = queries(admin_client, url)
    for _ in range(34):
        some_of_each(worker)
    assert Task.objects.count() > 200
    assert queries(admin_client, url) == before <= 6


def test_pages_ask_as_often_for_one_row_as_for_two_hundred(admin_client):
    (small,) = submit("true")
    submit(*["true"] * 200)
    large = Task.objects.latest("pk")
    worker = register(slots=300)
    promote()
    claims = claim(worker, 150)
    queue.report([ended(task, Outcome.FAILED, exit_code=1) for task in claims[:90]])
    few = queries(admin_client, f"{JOBS}{small.job_id}/change/")
    assert queries(admin_client, f"{JOBS}{large.job_id}/change/") == few <= 8
    (once,) = submit(shell("false", max_retries=100))
    page = f"{TASKS}{once.pk}/change/"
    attempts = [
        Attempt(
            task=once, generation=1, number=n, fencing_token=n, worker=worker,
            started_at=once.created_at, ended_at=once.created_at, outcome=Outcome.FAILED,
        )
        for n in range(1, 201)
    ]  # fmt: skip
    attempts[0].save()
    before = queries(admin_client, page)
    Attempt.objects.bulk_create(attempts[1:])
    assert queries(admin_client, page) == before <= 12


@pytest.mark.parametrize("url", [JOBS, TASKS, ATTEMPTS])
def test_no_list_counts_its_table(admin_client, url):
    some_of_each(register())
    with CaptureQueriesContext(connection) as found:
        admin_client.get(url)
    assert not [q["sql"] for q in found if 'COUNT(*) AS "__count"' in q["sql"]]


def test_a_list_ends_where_offsets_become_costly(admin_client):
    assert admin_client.get(f"{TASKS}?p={admin_base.DEEPEST_PAGE}").status_code == 200
    assert admin_client.get(f"{TASKS}?p={admin_base.DEEPEST_PAGE + 1}").status_code == 302


@pytest.mark.parametrize("status", ["pending", "done", "failed", "cancelled"])
def test_the_list_of_a_status_is_read_from_its_index(rf, status):
    tasks = submit(*["true"] * 300)
    few_left = tasks[10:] if status == "pending" else tasks[:10]
    queue.cancel([task.pk for task in few_left])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tasks")
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        ordering = admin.site.get_model_admin(Task).get_ordering(rf.get("", {"status": status}))
        plan = Task.objects.in_status(status).order_by(*ordering)[:50].explain()
    index = "tasks_live" if status == "pending" else "tasks_final"
    assert f"Index Scan Backward using {index}" in plan
    assert "Sort" not in plan


def test_counts_of_a_job_are_read_from_the_index_alone():
    (task,) = submit("true")
    statement = statements.text("progress").decode()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {statement}", {"ids": [task.job_id], "limit": 10})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert plan.count("Index Only Scan using tasks_of_job") == 4
    assert plan.count("Index Cond: ((job_id = job.id) AND (") == 4


def test_counts_stop_at_their_cap():
    tasks = submit("a", "b", "c", "d")
    counts = progress([tasks[0].job_id], cap=3)[tasks[0].job_id]
    assert str(counts[Status.PENDING]) == "3+"
    assert counts.capped
    assert str(Count(10_000)) == "10,000"
    assert str(Count(10_001)) == "10,000+"


def test_a_filter_without_an_index_sees_the_newest_rows_and_says_so(admin_client, monkeypatch):
    old, *_ = submit("true", "true", "true", queue="bulk")
    monkeypatch.setattr(admin_base, "WINDOW", 2)
    page = text(admin_client.get(f"{TASKS}?queue=bulk"))
    assert "Searched among the newest 2 rows" in page
    assert f"#{old.pk} true" not in page
    assert f"#{old.pk} true" in text(admin_client.get(f"{TASKS}?job={old.job_id}&queue=bulk"))
    assert f"#{old.pk} true" in text(admin_client.get(f"{TASKS}?q={old.pk}"))


# -- what is shown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("load", {"load a", "load b"}),
        ("load a", {"load a"}),
        ("a", {"a load"}),
        ("queue:gpu", {"a load"}),
        ("queue:gpu load", set()),
        ("worker:w1", {"load a"}),
        ("job:nonsense", set()),
        ("99999999999999999999999", set()),
        ("job:99999999999999999999999", set()),
    ],
)
def test_tasks_are_searched_by_name_and_qualifier(admin_client, search, found):
    submit(shell("true", name="load a", priority=1), shell("true", name="load b"))
    promote_to = register()
    promote()
    claim(promote_to, 1)
    submit(shell("true", name="a load"), queue="gpu")
    page = text(admin_client.get(TASKS, {"q": search}))
    assert {name for name in ("load a", "load b", "a load") if f" {name} " in page} == found


def test_the_tabs_count_what_is_cheap(admin_client):
    some_of_each(register())
    assert "pending 0 queued 2 in progress 1 done 1 failed 1 cancelled 1" in text(
        admin_client.get(TASKS)
    )
    job = Job.objects.get()
    assert "done 1 failed 1" in text(admin_client.get(f"{TASKS}?job={job.pk}"))
    assert "done failed" in text(admin_client.get(f"{TASKS}?queue=default"))


def test_a_jobs_page_shows_failures_first_and_where_it_stands(admin_client):
    some_of_each(register())
    job = Job.objects.get()
    page = text(admin_client.get(f"{JOBS}{job.pk}/change/"))
    tasks = page[page.index("Tasks Task Status") :]
    order = [tasks.index(f" {name} ") for name in ("failed", "in progress", "queued", "cancelled")]
    assert order == sorted(order)
    assert "done 1" in page
    assert "Retry failed" in page


def test_a_tasks_page_tells_its_story(admin_client):
    worker = register("alpha")
    (claimed,) = running(shell("make report", max_retries=1), worker=worker)
    logs.append(worker.pk, [part(claimed, b"compiling\n"), part(claimed, b"oh\n", stream="stderr")])
    failure = ended(
        claimed, Outcome.FAILED, exit_code=3, error="missing input", peak_memory_bytes=5 << 20
    )
    queue.report([failure])
    page = text(admin_client.get(f"{TASKS}{claimed.task_id}/change/"))
    for said in (
        "make report", "attempt 1 started on alpha", "failed, exit code 3", "missing input",
        "compiling", "stderr oh", "5.0 MiB", "it is tried again at",
    ):  # fmt: skip
        assert said in page
    assert "Cancel" in page


def test_a_tasks_page_tells_its_retry_rules_and_its_deadline(admin_client):
    rules = {
        "backoff": "linear",
        "base_seconds": 5,
        "ceiling_seconds": 60,
        "retry_on": [75, "timeout"],
        "elsewhere": True,
    }
    ruled, plain, late = submit(
        shell("x", max_retries=3, retry=rules, deadline_seconds=7200),
        shell("x", max_retries=3, retry={"fail_on": [2]}),
        shell("x", deadline_seconds=60),
    )
    Task.objects.filter(pk=late.pk).update(deadline_at=timezone.now())
    queue.fail_overdue(batch=1)

    page = text(admin_client.get(f"{TASKS}{ruled.pk}/change/"))
    assert (
        "0 of 3, linear backoff from 5.0 s up to 1 min, only after 75, timeout, "
        "on another worker first"
    ) in page
    assert re.search(r"Deadline 20[^,]*, 2 h in all", page)
    page = text(admin_client.get(f"{TASKS}{plain.pk}/change/"))
    assert "0 of 3, never after 2" in page
    assert "Deadline" not in page
    page = text(admin_client.get(f"{TASKS}{late.pk}/change/"))
    assert "Result deadline passed" in page
    assert re.search(r"Timeline .*submitted .* deadline passed 20", page)


def test_only_the_end_of_long_output_is_shown(admin_client):
    worker = register()
    (claimed,) = running("seq", worker=worker)
    logs.append(worker.pk, [part(claimed, b"first line\n"), part(claimed, b"x" * 70_000, start=11)])
    logs.append(worker.pk, [part(claimed, b"last line\n", start=70_011)])
    assert LogChunk.objects.count() == 3
    page = text(admin_client.get(f"{TASKS}{claimed.task_id}/change/"))
    assert "the last 64 KiB" in page
    assert "..." in page
    assert "last line" in page
    assert "first line" not in page


def test_nothing_a_task_says_is_markup(admin_client):
    worker = register()
    evil = "<script>alert(1)</script>"
    spec = TaskSpec(payload={"cmd": evil}, name=evil, max_retries=0)
    submit(spec, name=evil)
    promote()
    (claimed,) = claim(worker)
    logs.append(worker.pk, [part(claimed, evil.encode())])
    queue.report([ended(claimed, Outcome.FAILED, error=evil, result=evil)])
    task = Task.objects.get()
    for url in (
        f"{TASKS}{task.pk}/change/", f"{JOBS}{task.job_id}/change/", TASKS, JOBS, ATTEMPTS,
        f"{ATTEMPTS}{Attempt.objects.get().pk}/change/", "/admin/",
        f"/admin/workers/worker/{worker.pk}/change/",
    ):  # fmt: skip
        assert evil not in admin_client.get(url).content.decode(), url


@pytest.mark.parametrize("model", ["job", "task", "attempt"])
def test_an_empty_list_tells_the_next_command(admin_client, model):
    page = text(admin_client.get(f"/admin/jobs/{model}/"))
    assert "Nothing here yet." in page
    assert "manage.py" in page


# -- what people may do ----------------------------------------------------------------------


def test_cancel_answers_with_one_sentence_and_is_recorded(admin_client):
    worker = register()
    ran, runs = running("a", "b", worker=worker)
    queue.report([ended(ran)])
    waits, waits_too = submit("c", "d")
    ids = [ran.task_id, runs.task_id, waits.pk, waits_too.pk]
    page = act(admin_client, TASKS, "cancel", *ids)
    assert (
        "Cancelled 2 tasks at once, asked 1 worker to stop 1 running task; 1 had already ended."
        in text(page)
    )
    assert Task.objects.get(pk=waits.pk).status == Status.CANCELLED
    assert Task.objects.get(pk=runs.task_id).cancel_requested_at
    events = AuditEvent.objects.filter(actor="admin", action="cancel", source="127.0.0.1")
    assert {event.target for event in events} == {f"task {pk}" for pk in ids}


def test_cancel_says_when_there_was_nothing_to_do(admin_client):
    ran, runs = running("a", "b")
    queue.report([ended(ran)])
    page = act(admin_client, TASKS, "cancel", ran.task_id)
    assert "Nothing to cancel; 1 had already ended." in text(page)
    page = act(admin_client, TASKS, "cancel", runs.task_id)
    assert "Asked 1 worker to stop 1 running task." in text(page)


def test_a_task_that_left_the_filter_is_cancelled_all_the_same(admin_client):
    (task,) = submit("true")
    register()
    promote()
    act(admin_client, f"{TASKS}?status=pending", "cancel", task.pk)
    assert Task.objects.get(pk=task.pk).status == Status.CANCELLED


def test_retry_from_a_tasks_page_returns_to_it(admin_client):
    (claimed,) = running("false")
    queue.report([ended(claimed, Outcome.FAILED)])
    page = act(admin_client, TASKS, "retry", claimed.task_id, _page="1")
    assert page.redirect_chain[-1][0] == f"{TASKS}{claimed.task_id}/change/"
    assert "1 task will run again." in text(page)
    assert Task.objects.get(pk=claimed.task_id).generation == 2
    again = act(admin_client, TASKS, "retry", claimed.task_id)
    assert "0 tasks will run again; 1 had neither failed nor been cancelled." in text(again)


def test_a_job_is_cancelled_and_retried_as_a_whole(admin_client):
    task, _ = submit("a", "b")
    page = act(admin_client, JOBS, "cancel", task.job_id, _page="1")
    assert "Cancelled 2 tasks at once." in text(page)
    assert "2 tasks will run again." in text(act(admin_client, JOBS, "retry", task.job_id))
    recorded = AuditEvent.objects.filter(target=f"job {task.job_id}").order_by("id")
    assert [event.action for event in recorded] == ["cancel", "retry"]
    shown = text(admin_client.get(f"{JOBS}{task.job_id}/change/"))
    assert "What people did" in shown


def test_who_may_only_look_does_nothing(client):
    (task,) = submit("true")
    viewer = person(client, "view_task", "view_job")
    assert "Cancel" not in text(viewer.get(f"{TASKS}{task.pk}/change/"))
    act(viewer, TASKS, "cancel", task.pk)
    assert Task.objects.get(pk=task.pk).status == Status.PENDING
    assert not AuditEvent.objects.exists()


def test_who_may_change_tasks_may_cancel_them(client):
    (task,) = submit("true")
    act(person(client, "view_task", "change_task"), TASKS, "cancel", task.pk)
    assert Task.objects.get(pk=task.pk).status == Status.CANCELLED


@pytest.mark.parametrize("model", ["job", "task", "attempt", "auditevent"])
def test_nothing_is_edited_by_form(admin_client, model):
    (claimed,) = running("true")
    queue.report([ended(claimed)])
    AuditEvent.objects.create(actor="a", action="b", target="c")
    pk = {"attempt": Attempt, "auditevent": AuditEvent}.get(model, Task).objects.get().pk
    pk = Job.objects.get().pk if model == "job" else pk
    url = f"/admin/jobs/{model}/"
    assert admin_client.get(f"{url}add/").status_code == 403
    assert admin_client.post(f"{url}{pk}/change/", {"status": "done"}).status_code == 403
    assert admin_client.post(f"{url}{pk}/delete/", {"post": "yes"}).status_code == 403
    act(admin_client, url, "delete_selected", pk, post="yes")
    assert admin_client.get(f"{url}?q={pk}").status_code == 200
    assert Task.objects.exists()
    assert Attempt.objects.exists()
    assert AuditEvent.objects.exists()


# -- tokens ----------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_works(admin_client):
    name = "c" * 100
    form = {"name": name, "scopes": ["read", "submit"], "expires_at_0": "", "expires_at_1": ""}
    page = admin_client.post(f"{TOKENS}add/", form, follow=True).content.decode()
    (secret,) = set(re.findall(r"dts_[0-9a-f]{8}_[\w-]{43}", page))
    token = Token.objects.get(pk=Token.find(secret).pk)
    assert (token.name, token.scopes, token.owner.username) == (name, ["read", "submit"], "admin")
    event = AuditEvent.objects.get()
    assert (event.action, event.target) == ("create", f"token {token.pk}")
    for url in (TOKENS, f"{TOKENS}{token.pk}/change/"):
        page = admin_client.get(url).content.decode()
        assert secret not in page
        assert token.hashed_secret not in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"scopes": []},
        {"scopes": ["root"]},
        {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"},
        {"worker_name": "w1"},
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(admin_client, wrong):
    form = {"name": "ci", "scopes": ["read"], "expires_at_0": "", "expires_at_1": "", **wrong}
    assert admin_client.post(f"{TOKENS}add/", form).status_code == 200
    assert not Token.objects.exists()


def test_a_token_may_be_one_worker_alone(admin_client):
    form = {"name": "ci", "scopes": ["work"], "expires_at_0": "", "expires_at_1": ""}
    admin_client.post(f"{TOKENS}add/", {**form, "worker_name": "w1"})
    token = Token.objects.get()
    assert token.worker_name == "w1"
    assert "w1" in admin_client.get(f"{TOKENS}{token.pk}/change/").content.decode()


def test_only_superusers_give_the_admin_scope_away(client):
    clerk = person(client, "view_token", "add_token")
    form = {"name": "ci", "scopes": ["admin"], "expires_at_0": "", "expires_at_1": ""}
    assert clerk.post(f"{TOKENS}add/", form).status_code == 200
    assert not Token.objects.exists()
    clerk.post(f"{TOKENS}add/", {**form, "scopes": ["submit"]})
    assert Token.objects.get().scopes == ["submit"]


def test_a_revoked_token_is_no_longer_found(admin_client):
    token, secret = Token.issue("ci", ["read"])
    assert "Revoked 1 token." in text(act(admin_client, TOKENS, "revoke", token.pk))
    assert Token.find(secret) is None
    again = text(act(admin_client, TOKENS, "revoke", token.pk))
    assert "Revoked 0 tokens; 1 had been revoked before." in again
