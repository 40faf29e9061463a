"""Verbs for all that a filter leaves: counted, carried out batch by batch, followed, cancelled."""

import html
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connections, transaction
from django.test import Client as Browser
from django.utils import timezone

from jobs import operations, queue
from jobs.models import AuditEvent, Job, Operation, Task
from jobs.specs import Unique
from jobs.states import Outcome
from scheduling.recovery import Recovery
from tests.api import Client, pointers, problem
from tests.helpers import begin, claim, ended, promote, register, shell, submit

pytestmark = pytest.mark.django_db
PATH = "/api/v1/operations"


@pytest.fixture
def client():
    return Client("read", "submit", "operate", name="ops")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("jobs.operations.BATCH", 3)


def ask(client, action, given=None, *, target="tasks", **more):
    return client.send(PATH, {"action": action, "target": target, "filter": given or {}, **more})


def finish() -> int:
    """Carries out all that was asked for; how many batches that took."""
    batches = 0
    while operations.advance():
        batches += 1
    return batches


def statuses(*tasks: Task) -> list[str]:
    found = dict(Task.objects.values_list("pk", "status"))
    return [found[task.pk] for task in tasks]


def test_all_that_match_are_cancelled_batch_by_batch(client):
    submit(*[shell(f"{n}", name="x") for n in range(4)])
    submit(*[shell(f"{n}", name="x") for n in range(4)], queue="q")
    others = submit("1", "2", queue="q")

    asked = ask(client, "cancel", {"name": "x", "queue": "q"})

    assert asked.status_code == 202
    begun = asked.json()
    assert asked["Location"] == f"{PATH}/{begun['id']}"
    assert (begun["state"], begun["total"], begun["exact"], begun["done"]) == (
        "waiting",
        4,
        True,
        0,
    )
    assert begun["requested_by"] == "ops"
    operations.advance()
    now = client.get(asked["Location"]).json()
    assert (now["state"], now["done"]) == ("running", 3)
    finish()
    over = client.get(asked["Location"]).json()
    assert (over["state"], over["done"], over["error"]) == ("done", 4, "")
    assert over["ended_at"] >= over["started_at"] >= over["created_at"]
    assert Task.objects.filter(status="cancelled").count() == 4
    assert statuses(*others) == ["pending", "pending"]
    assert client.get(PATH).json()["results"] == [over]
    event = AuditEvent.objects.get()
    assert (event.actor, event.action, event.target) == (
        "ops",
        "cancel",
        f"operation {begun['id']}",
    )
    assert event.detail["filter"] == {"name": "x", "queue": "q"}


def test_a_dry_run_counts_and_stores_nothing(client, monkeypatch):
    submit("1", "2", "3")
    asked = ask(client, "cancel", dry_run=True)
    assert (asked.status_code, asked.json()) == (200, {"total": 3, "exact": True})
    monkeypatch.setattr("jobs.operations.COUNTED", 2)
    assert ask(client, "cancel", dry_run=True).json() == {"total": 2, "exact": False}
    assert ask(client, "retry", dry_run=True).json() == {"total": 0, "exact": True}
    assert not Operation.objects.exists()
    assert not AuditEvent.objects.exists()


def test_only_tasks_in_a_state_that_allows_it_are_meant(client):
    worker = register()
    tasks = submit("1", "2", "3", "4")
    promote()
    held = {task.task_id: task for task in claim(worker, 3)}
    queue.report([ended(held[tasks[0].pk]), ended(held[tasks[1].pk], Outcome.FAILED)])
    assert statuses(*tasks) == ["done", "failed", "in_progress", "queued"]

    for action, total in {"cancel": 2, "retry": 1, "prioritise": 1}.items():
        more = {"priority": 7} if action == "prioritise" else {}
        assert ask(client, action, dry_run=True, **more).json()["total"] == total
    ask(client, "prioritise", priority=7)
    finish()
    ask(client, "retry")
    finish()

    assert statuses(*tasks) == ["done", "pending", "in_progress", "pending"]
    assert [t.priority for t in Task.objects.order_by("pk")] == [0, 0, 0, 7]


def test_what_comes_later_is_not_meant(client):
    submit("1")
    ask(client, "cancel")
    (later,) = submit("2")
    finish()
    assert statuses(later) == ["pending"]


def test_of_jobs_all_tasks_are_meant(client):
    worker = register()
    (first, second), (other,) = submit("1", "2", name="a"), submit("3", name="b")
    promote()
    held = claim(worker, 1)
    assert ask(client, "cancel", {"name": "a"}, target="jobs", dry_run=True).json()["total"] == 2

    ask(client, "cancel", {"name": "a"}, target="jobs")
    finish()

    assert statuses(first, second, other) == ["in_progress", "cancelled", "queued"]
    assert Job.objects.get(pk=first.job_id).cancelled_at
    assert Job.objects.get(pk=other.job_id).cancelled_at is None
    queue.report([ended(held[0], Outcome.CANCELLED)])
    ask(client, "retry", {"name": "a"}, target="jobs")
    finish()
    assert statuses(first, second) == ["pending", "pending"]


def test_a_gap_of_ids_and_a_stretch_without_a_match_take_a_step_each(client, monkeypatch):
    monkeypatch.setattr("jobs.operations.RANGE", 10)
    (first,) = submit(shell("1", name="x"))
    submit(*["2"] * 25)
    gap = submit(*["3"] * 300)
    Task.objects.filter(pk__in=[t.pk for t in gap[:-1]]).delete()
    (last,) = submit(shell("4", name="x"))
    ask(client, "cancel", {"name": "x"})
    assert finish() <= 6
    assert statuses(first, last) == ["cancelled", "cancelled"]


def test_one_that_is_cancelled_does_no_more(client):
    submit(*["1"] * 5)
    path = ask(client, "cancel")["Location"]
    operations.advance()

    over = client.send(f"{path}/cancel")

    assert (over.status_code, over.json()["state"], over.json()["done"]) == (200, "cancelled", 3)
    assert finish() == 0
    assert Task.objects.filter(status="cancelled").count() == 3
    assert problem(client.send(f"{path}/cancel"), 409, "wrong_state")["state"] == "cancelled"
    assert AuditEvent.objects.filter(target=f"operation {over.json()['id']}").count() == 2


def test_a_batch_that_is_undone_is_not_noted(client, monkeypatch):
    """As where its recovery is killed before the commit: the next does it."""
    tasks = submit(*["1"] * 4)
    pk = ask(client, "cancel").json()["id"]

    class Killed(BaseException):
        pass

    do = operations._do

    def die(*given):
        do(*given)
        raise Killed

    monkeypatch.setattr("jobs.operations._do", die)
    with pytest.raises(Killed), transaction.atomic():
        operations.advance()
    assert statuses(*tasks) == ["pending"] * 4
    assert Operation.objects.get(pk=pk).state == "waiting"
    monkeypatch.undo()

    finish()
    assert (Operation.objects.get(pk=pk).done, statuses(*tasks)) == (4, ["cancelled"] * 4)


@pytest.mark.django_db(transaction=True)
def test_a_batch_is_done_by_one_of_many():
    submit(*["1"] * 9)
    one, two = (
        operations.begin(Operation(action="cancel", target="tasks", filter=given))
        for given in ({}, {"priority_min": 1})
    )
    (commit,) = begin(operations.advance)
    assert operations.advance() == 1  # of the other
    commit()
    assert (Operation.objects.get(pk=one.pk).done, Operation.objects.get(pk=two.pk).state) == (
        3,
        "done",
    )
    connections.close_all()


def test_recovery_carries_them_out(client):
    tasks = submit(*["1"] * 4)
    ask(client, "cancel")
    recovery = Recovery()
    while recovery.tick():
        pass
    assert statuses(*tasks) == ["cancelled"] * 4


def test_where_others_hold_the_unique_keys_nothing_comes_back(client):
    (old,) = submit("1", unique=Unique("k"))
    queue.cancel([old.pk])
    submit("2", unique=Unique("k"))
    path = ask(client, "retry")["Location"]
    finish()
    assert (client.get(path).json()["state"], client.get(path).json()["done"]) == ("done", 0)


def test_a_filter_that_is_no_longer_one_ends_it(client):
    submit("1")
    path = ask(client, "cancel")["Location"]
    Operation.objects.update(filter={"colour": "red"})
    finish()
    over = client.get(path).json()
    assert over["state"] == "failed"
    assert "colour: There is no such filter" in over["error"]


def test_old_ones_are_pruned(client):
    submit("1")
    ask(client, "cancel")
    finish()
    ask(client, "retry")
    Operation.objects.filter(action="cancel").update(ended_at=timezone.now() - timedelta(days=400))
    assert operations.prune() == 1
    assert [it.action for it in Operation.objects.all()] == ["retry"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"action": "delete"}, "#/action"),
        ({"target": "workers"}, "#/target"),
        ({"filter": {"colour": "red"}}, "#/filter/colour"),
        ({"filter": {"status": "lost"}}, "#/filter/status"),
        ({"filter": {"status": []}}, "#/filter/status"),
        ({"filter": {"name": ""}}, "#/filter/name"),
        ({"filter": {"name": None}}, "#/filter/name"),
        ({"filter": {"job": "x"}}, "#/filter/job"),
        ({"filter": {"created_after": "2030-01-01"}}, "#/filter/created_after"),
        ({"filter": {"status": "failed"}, "target": "jobs"}, "#/filter/status"),
        ({"priority": 5}, "#/priority"),
        ({"action": "prioritise"}, "#/priority"),
        ({"dry_run": "yes"}, "#/dry_run"),
        ({"force": True}, "#/force"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client, change, pointer):
    body = {"action": "cancel", "target": "tasks", "filter": {}, **change}
    assert pointers(problem(client.send(PATH, body), 400, "invalid")) == [pointer]
    assert not Operation.objects.exists()


def test_the_filter_must_be_given(client):
    body = {"action": "cancel", "target": "tasks"}
    assert pointers(problem(client.send(PATH, body), 400, "invalid")) == ["#/filter"]


# -- large jobs ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["cancel", "prioritise", "retry"])
def test_a_verb_of_a_large_job_becomes_an_operation(client, monkeypatch, verb):
    monkeypatch.setattr("jobs.operations.LARGE_JOB", 4)
    tasks, _ = submit(*["1"] * 5), submit("2")
    if verb == "retry":
        queue.cancel([task.pk for task in tasks])
    path = f"/api/v1/jobs/{tasks[0].job_id}"

    answer = client.send(f"{path}/{verb}", {"priority": 9} if verb == "prioritise" else b"")

    begun = answer.json()
    assert (answer.status_code, answer["Location"]) == (202, f"{PATH}/{begun['id']}")
    assert (begun["total"], begun["filter"]) == (5, {"job": tasks[0].job_id})
    if verb == "cancel":
        assert client.get(path).json()["state"] == "cancelling"
    assert finish() == 2
    assert client.get(answer["Location"]).json()["done"] == 5
    now = client.get(path).json()
    assert now["counts"]["cancelled" if verb == "cancel" else "pending"] == 5
    assert {t.priority for t in Task.objects.filter(job=tasks[0].job_id)} == (
        {9} if verb == "prioritise" else {0}
    )
    event = AuditEvent.objects.get(target=f"job {tasks[0].job_id}")
    assert (event.action, event.detail) == (verb, {"operation": begun["id"]})


def test_a_job_of_several_chunks_is_cancelled_whole(client, monkeypatch):
    monkeypatch.setattr("jobs.cancelling.CHUNK", 2)
    tasks = submit(*["1"] * 5)
    answer = client.send(f"/api/v1/jobs/{tasks[0].job_id}/cancel")
    assert (answer.status_code, answer.json()["counts"]["cancelled"]) == (200, 5)


# -- the admin -------------------------------------------------------------------------------

PAGE = "/admin/jobs/operation/"


def test_the_pages_show_how_far_they_are_and_cancel_them(admin_client, client):
    submit(*["1"] * 5, queue="q")
    pk = ask(client, "cancel", {"queue": "q", "status": ["pending", "queued"]}).json()["id"]
    operations.advance()
    for url in (PAGE, f"{PAGE}{pk}/change/"):
        page = admin_client.get(url).content.decode()
        assert "3 of 5" in page
        assert "queue q, status pending, queued" in page
    act = {"action": "cancel", "_selected_action": [str(pk)]}
    assert "Cancelled 1 operation." in admin_client.post(PAGE, act, follow=True).content.decode()
    assert "Cancelled 0 operations." in admin_client.post(PAGE, act, follow=True).content.decode()
    assert Operation.objects.get().state == "cancelled"


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_large_job_goes_the_same_way(admin_client, monkeypatch, verb):
    monkeypatch.setattr("jobs.operations.LARGE_JOB", 2)
    large, small = submit(*["1"] * 3), submit("2")
    if verb == "retry":
        queue.cancel([task.pk for task in [*large, *small]])
    act = {"action": verb, "_selected_action": [large[0].job_id, small[0].job_id]}
    page = admin_client.post("/admin/jobs/job/", act, follow=True).content.decode()
    operation = Operation.objects.get()
    assert f"{verb} tasks #{operation.pk}" in page
    assert operation.requested_by == "admin"
    assert AuditEvent.objects.filter(action=verb).count() == 2
    finish()
    left = "cancelled" if verb == "cancel" else "pending"
    assert set(Task.objects.values_list("status", flat=True)) == {left}


FORM = {"action": "cancel", "target": "tasks", "filter": '{"queue": "q"}', "priority": ""}


def test_a_person_counts_first_and_then_does_it(admin_client):
    submit("1", "2", queue="q")
    counted = admin_client.post(f"{PAGE}add/", {**FORM, "only_count": "on"})
    assert "It would change 2 tasks." in counted.content.decode()
    assert not Operation.objects.exists()

    page = admin_client.post(f"{PAGE}add/", FORM, follow=True).content.decode()

    assert "It goes on in the background." in page
    assert "0 of 2" in page
    finish()
    assert Task.objects.filter(status="cancelled").count() == 2
    event = AuditEvent.objects.get()
    assert (event.actor, event.action) == ("admin", "cancel")
    assert event.detail == {"of": "tasks", "filter": {"queue": "q"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filter": "{"}, "The filter is not JSON"),
        ({"filter": "[]"}, "Expected a dictionary"),
        ({"filter": '{"colour": "red"}'}, "There is no such filter"),
        ({"priority": "5"}, "Only prioritise takes a priority."),
        ({"action": "prioritise"}, "Say which priority"),
    ],
)
def test_the_form_refuses_what_the_api_would(admin_client, change, said):
    page = admin_client.post(f"{PAGE}add/", {**FORM, **change}, follow=True).content.decode()
    assert said in page
    assert not Operation.objects.exists()


def test_a_list_of_tasks_leads_to_all_that_match(admin_client, client):
    found = admin_client.get("/admin/jobs/task/?status=failed&job=%237&p=2").content.decode()
    (url,) = re.findall(r'href="(/admin/jobs/operation/add/[^"]+)"', found)
    form = admin_client.get(html.unescape(url)).content.decode()
    assert html.escape('{"status": "failed", "job": "7"}') in form
    assert "operation/add" not in admin_client.get("/admin/jobs/task/?kind=shell").content.decode()


def test_who_may_not_change_tasks_may_not_change_many(client):
    user = User.objects.create_user("eve", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=["view_task", "view_operation"])
    )
    browser = Browser()
    browser.force_login(user)
    assert browser.post(f"{PAGE}add/", FORM).status_code == 403
    assert "operation/add" not in browser.get("/admin/jobs/task/").content.decode()
