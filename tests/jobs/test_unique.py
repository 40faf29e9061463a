"""Unique keys: of the jobs that name the same one, a single one at a time holds it."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F, Q
from django.utils import timezone

from jobs import prune, queue
from jobs.models import AuditEvent, Job, Task, UniqueKey
from jobs.specs import JobSpec, Parent, TaskSpec, Unique
from jobs.states import Outcome
from scheduling import schedules
from scheduling.firing import make_due
from scheduling.models import Firing
from tests.api import Client, problem
from tests.helpers import begin, claim, ended, promote, register, scheduled, shell

pytestmark = pytest.mark.django_db


def submit(key="k", on_duplicate="reject", *, tasks=("true",), queue_="default", **more) -> Job:
    specs = [task if isinstance(task, TaskSpec) else shell(task) for task in tasks]
    unique = Unique(key, on_duplicate=on_duplicate, **more)
    return queue.submit(JobSpec(name="test", queue=queue_, tasks=specs, unique=unique))


def end(job: Job, outcome: Outcome = Outcome.DONE) -> None:
    """Runs all of the job."""
    worker = register(f"w{job.pk}", queues=[job.queue])
    promote()
    claimed = claim(worker)
    queue.report([ended(t, outcome if t.job_id == job.pk else Outcome.RELEASED) for t in claimed])
    assert not Task.objects.live().filter(job=job).exists()


def statuses(job: Job) -> list[str]:
    return list(Task.objects.filter(job=job).order_by("pk").values_list("status", flat=True))


def test_a_job_holds_its_key_until_all_of_it_has_ended():
    worker = register()
    first = submit(tasks=["1", "2"])
    promote()
    one, two = claim(worker)
    queue.report([ended(one)])
    with pytest.raises(queue.Duplicate, match=f"Job {first.pk} holds") as refused:
        submit()
    assert refused.value.members == {"job_id": first.pk}
    assert (Job.objects.count(), Task.objects.count()) == (1, 2)

    queue.report([ended(two, Outcome.FAILED)])

    assert submit().pk > first.pk


def test_a_key_is_of_its_queue_or_of_all():
    submit()
    submit("other")
    submit(queue_="gpu")
    submit(scope="all")
    with pytest.raises(queue.Duplicate):
        submit(scope="all", queue_="gpu")
    with pytest.raises(queue.Duplicate):
        submit(queue_="gpu")
    queue.submit(JobSpec(name="free", tasks=[shell("true")]))
    assert Job.objects.count() == 5


def test_within_its_window_it_is_held_though_the_job_has_ended():
    first = submit(window_seconds=60)
    end(first)
    with pytest.raises(queue.Duplicate):
        submit()
    UniqueKey.objects.update(until=F("until") - timedelta(seconds=61))

    second = submit()  # without a window
    end(second)

    assert submit().pk > second.pk


def test_a_window_does_not_end_a_job_that_runs_on():
    submit(window_seconds=0.001)
    with pytest.raises(queue.Duplicate):
        submit()


def test_who_joins_gets_the_job_that_holds_it():
    first = submit()
    same = submit(on_duplicate="join", tasks=["another"])
    assert (same.pk, same.joined, first.joined) == (first.pk, True, False)
    assert (Job.objects.count(), Task.objects.count()) == (1, 1)
    end(first)
    assert not submit(on_duplicate="join").joined


def test_who_replaces_cancels_what_has_not_started():
    worker = register(slots=1)
    later = timezone.now() + timedelta(hours=1)
    tasks = [TaskSpec({"cmd": "1"}, key="a"), shell("2"), shell("3", run_after=later)]
    first = submit(tasks=[*tasks, TaskSpec({"cmd": "4"}, depends_on=["a"])])
    promote()
    (held,) = claim(worker, 1)

    second = submit(on_duplicate="replace")

    assert second.pk > first.pk
    assert statuses(first) == ["in_progress", *["cancelled"] * 3]
    assert queue.report([ended(held)]) == {held.task_id: "done"}
    assert Job.objects.get(pk=first.pk).cancelled_at is None
    event = AuditEvent.objects.get()
    assert (event.action, event.target, event.source) == (
        "replace",
        f"job {first.pk}",
        f"job {second.pk}",
    )
    with pytest.raises(queue.Duplicate, match=f"Job {second.pk} "):
        submit()


def test_a_replacement_that_cannot_be_stored_cancels_nothing(monkeypatch):
    first = submit(tasks=["1"])
    monkeypatch.setattr("jobs.submission.MAX_LANES", 0)
    with pytest.raises(queue.TooManyLanes):
        submit(on_duplicate="replace", tasks=[shell("2", requires=["gpu"])])
    assert statuses(first) == ["pending"]
    assert UniqueKey.objects.get().job_id == first.pk


def test_what_is_retried_holds_its_key_again():
    first = submit()
    end(first, Outcome.FAILED)
    assert queue.retry(first.tasks.values_list("pk", flat=True))
    with pytest.raises(queue.Duplicate):
        submit()


def test_nothing_is_retried_while_another_holds_the_key():
    first = submit()
    end(first, Outcome.FAILED)
    second = submit()
    (task,) = first.tasks.all()
    with pytest.raises(queue.Duplicate, match=f"Job {second.pk} "):
        queue.retry([task.pk])
    assert statuses(first) == ["failed"]

    (other,) = queue.submit(JobSpec(name="free", tasks=[shell("true")])).tasks.all()
    queue.cancel([other.pk])
    assert queue.retry([task.pk, other.pk]) == [other.pk]

    end(second)
    assert queue.retry([task.pk]) == [task.pk]
    with pytest.raises(queue.Duplicate, match=f"Job {first.pk} "):
        submit()


def test_of_two_that_are_retried_at_once_one_comes_back():
    first, second = submit(), None
    end(first, Outcome.FAILED)
    second = submit()
    end(second, Outcome.FAILED)
    ids = list(Task.objects.values_list("pk", flat=True))
    assert len(queue.retry(ids)) == 1
    assert Task.objects.live().count() == 1


def test_what_a_failure_cancelled_in_another_job_stays_if_that_lost_its_key():
    parent = submit("parent")
    (task,) = parent.tasks.all()
    child = submit("child", tasks=[TaskSpec({"cmd": "2"}, depends_on=[Parent(task.pk)])])
    end(parent, Outcome.FAILED)
    queue.release()
    assert statuses(child) == ["cancelled"]
    submit("child")

    assert queue.retry([task.pk]) == [task.pk]

    assert statuses(child) == ["cancelled"]


def test_a_key_goes_with_its_job():
    kept = submit("kept", window_seconds=10**6)
    gone = submit("gone", window_seconds=10**6)
    for job in (kept, gone):
        end(job)
    queue.settle(after=0, limit=9)
    Job.objects.filter(pk=gone.pk).update(finished_at=timezone.now() - timedelta(days=400))

    assert prune.prune() == 1

    assert [it.key for it in UniqueKey.objects.all()] == ["kept"]
    submit("gone")


def test_a_key_whose_job_was_deleted_by_hand_is_free():
    job = submit(window_seconds=10**6)
    end(job)
    Task.objects.filter(job=job).delete()
    Job.objects.filter(pk=job.pk).delete()
    assert not submit(on_duplicate="join").joined


# -- at one instant --------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("on_duplicate", ["reject", "join", "replace"])
def test_a_submit_waits_for_another_of_the_same_key(on_duplicate):
    results = []

    def second() -> None:
        try:
            results.append(submit(on_duplicate=on_duplicate))
        except queue.Duplicate as refused:
            results.append(refused)

    commits = begin(submit, second)
    assert not results
    for commit in commits:
        commit()

    (result,) = results
    first = Job.objects.order_by("pk").first()
    match on_duplicate:
        case "reject":
            assert result.members == {"job_id": first.pk}
        case "join":
            assert result.pk == first.pk
        case "replace":
            assert statuses(first) == ["cancelled"]
    live = Task.objects.live().values("job").distinct()
    assert live.count() == 1
    assert Job.objects.count() == (2 if on_duplicate == "replace" else 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["retry", "submit"])
@pytest.mark.parametrize("named", ["itself", "its parent"])
def test_a_retry_and_a_submit_at_once_leave_one_holder(first, named):
    parent = queue.submit(JobSpec(name="parent", tasks=[shell("1")]))
    (above,) = parent.tasks.all()
    job = submit(tasks=[TaskSpec({"cmd": "2"}, depends_on=[Parent(above.pk)])])
    end(parent, Outcome.FAILED)
    queue.release()
    (task,) = job.tasks.all()
    if named == "itself":
        Task.objects.filter(pk=above.pk).update(status="done")
        retried = task.pk
    else:
        retried = above.pk

    def quietly(verb) -> None:
        with suppress(queue.Duplicate):
            verb()

    verbs = {
        "retry": lambda: quietly(lambda: queue.retry([retried])),
        "submit": lambda: quietly(submit),
    }
    commits = begin(verbs.pop(first), *verbs.values())
    for commit in commits:
        commit()

    holders = Task.objects.live().filter(~Q(job=parent)).values_list("job_id", flat=True)
    assert list(holders) == ([job.pk] if first == "retry" else [Job.objects.latest("pk").pk])
    assert UniqueKey.objects.get().job_id == holders[0]


@pytest.mark.django_db(transaction=True)
def test_however_submits_ends_and_retries_meet_one_job_lives():
    """Four connections do what they like with two keys, and look at what lives after each step."""
    barrier, faults = threading.Barrier(4), []

    def work(seed: int) -> int:
        chance, made = random.Random(seed), 0  # noqa: S311 - no secret
        barrier.wait(20)
        try:
            for _ in range(25):
                key, verb = chance.choice("ab"), chance.choice(["submit", "submit", "end", "retry"])
                found = list(Task.objects.filter(job__unique__key=key).values_list("pk", flat=True))
                try:
                    if verb == "submit":
                        made += not submit(key, chance.choice(["reject", "join", "replace"])).joined
                    elif verb == "end":
                        queue.cancel(found)
                    elif found:
                        queue.retry(chance.sample(found, min(3, len(found))))
                except queue.Duplicate:
                    pass
                live = Task.objects.live().filter(job__unique__key=key)
                if (count := live.values("job").distinct().count()) > 1:
                    faults.append((key, verb, count))
            return made
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        made = sum(pool.map(work, range(4)))
    assert faults == []
    assert Job.objects.count() == made > 4


# -- over the API ----------------------------------------------------------------------------

PATH = "/api/v1/jobs"
BODY = {"name": "demo", "tasks": [{"payload": {"cmd": "true"}}], "unique": {"key": "k"}}


def body(on_duplicate: str) -> dict:
    return {**BODY, "unique": {"key": "k", "on_duplicate": on_duplicate}}


def test_the_api_refuses_joins_and_replaces():
    client = Client("read", "submit")
    first = client.send(PATH, BODY).json()
    del first["warnings"]  # which are of a submit, not of the job
    shown = {"key": "k", "scope": "queue", "window_seconds": None, "on_duplicate": "reject"}
    assert first["unique"] == shown
    assert client.get(f"{PATH}/{first['id']}").json() == first

    assert problem(client.send(PATH, BODY), 409, "duplicate")["job_id"] == first["id"]
    joined = client.send(PATH, {**body("join"), "name": "other"})
    assert (joined.status_code, joined.json()) == (200, first)
    assert joined["Location"] == f"{PATH}/{first['id']}"
    replaced = client.send(PATH, body("replace"))
    assert (replaced.status_code, replaced.json()["id"] > first["id"]) == (201, True)
    assert client.get(f"{PATH}/{first['id']}").json()["state"] == "cancelled"


def test_an_idempotency_key_replays_the_first_answer_whatever_came_of_the_unique_one():
    client = Client("submit", "read")

    def send(key: str, given: dict):
        return client.send(PATH, given, HTTP_IDEMPOTENCY_KEY=key)

    first = send("i1", BODY)
    assert send("i1", BODY).json() == first.json()
    problem(send("i2", BODY), 409, "duplicate")
    joined = send("i3", body("join"))
    assert (joined.status_code, "Idempotent-Replayed" in joined) == (200, False)
    end(Job.objects.get())
    again = send("i3", body("join"))
    assert (again.status_code, again["Idempotent-Replayed"]) == (200, "true")
    assert (again.json()["id"], again.json()["state"]) == (first.json()["id"], "done")
    assert send("i2", BODY).status_code == 201  # what was refused is not remembered


def test_lines_and_clones_are_held_to_it():
    client = Client("submit")
    lines = b'{"name": "a", "unique": {"key": "k"}}\n{"payload": {"cmd": "true"}}\n'
    first = client.post(PATH, lines, content_type="application/x-ndjson")
    assert (first.status_code, first.json()["unique"]["key"]) == (201, "k")
    again = client.post(PATH, lines, content_type="application/x-ndjson")
    problem(again, 409, "duplicate")
    clone = f"{PATH}/{first.json()['id']}/clone"
    problem(client.send(clone), 409, "duplicate")
    end(Job.objects.get())
    assert client.send(clone).json()["unique"]["key"] == "k"


def test_a_retry_is_refused_by_name():
    client = Client("submit", "operate")
    first = client.send(PATH, BODY).json()
    end(Job.objects.get(), Outcome.FAILED)
    second = client.send(PATH, BODY).json()
    assert (
        problem(client.send(f"{PATH}/{first['id']}/retry"), 409, "duplicate")["job_id"]
        == (second["id"])
    )


@pytest.mark.parametrize(
    ("unique", "pointer"),
    [
        ("k", "#/unique"),
        ({}, "#/unique/key"),
        ({"key": " "}, "#/unique/key"),
        ({"key": "x" * 201}, "#/unique/key"),
        ({"key": "k", "scope": "here"}, "#/unique/scope"),
        ({"key": "k", "window_seconds": 0}, "#/unique/window_seconds"),
        ({"key": "k", "window_seconds": 1e9}, "#/unique/window_seconds"),
        ({"key": "k", "on_duplicate": "raise"}, "#/unique/on_duplicate"),
        ({"key": "k", "ttl": 5}, "#/unique/ttl"),
    ],
)
def test_what_is_no_unique_key_is_refused_by_name(unique, pointer):
    document = problem(Client("submit").send(PATH, {**BODY, "unique": unique}), 400, "invalid")
    assert [fault["pointer"] for fault in document["errors"]] == [pointer]
    assert not Job.objects.exists()


def test_the_command_takes_a_unique_key(capsys):
    call_command("submit", "true", "--unique", "k")
    with pytest.raises(CommandError, match="holds the unique key k") as refused:
        call_command("submit", "true", "--unique", "k")
    assert refused.value.returncode == 2
    call_command("submit", "true", "--unique", "k", "--on-duplicate", "join")
    call_command("submit", "true", "--unique", "k", "--on-duplicate", "replace")
    first, joined, second = map(int, capsys.readouterr().out.split())
    assert first == joined < second


def test_a_jobs_page_shows_its_key(admin_client):
    job = submit("import-shop", "join", window_seconds=3600)
    page = admin_client.get(f"/admin/jobs/job/{job.pk}/change/").content.decode()
    assert "import-shop (in its queue, for 1 h, join)" in page


def test_the_admin_says_why_nothing_is_retried(admin_client):
    first = submit()
    end(first, Outcome.FAILED)
    second = submit()
    act = {"action": "retry", "_selected_action": [str(first.pk)]}
    page = admin_client.post("/admin/jobs/job/", act, follow=True).content.decode()
    assert f"Job {second.pk} holds the unique key k" in page
    assert not AuditEvent.objects.exists()


# -- schedules -------------------------------------------------------------------------------


def test_a_schedule_skips_a_time_whose_key_is_held_and_goes_on():
    template = {**BODY, "name": "n", "unique": {"key": "{schedule}"}}
    made = scheduled(template=template, back=timedelta(minutes=1))
    other = scheduled(name="free", back=timedelta(minutes=1))
    submit(made.name)
    make_due()

    outcomes = {firing.schedule_id: firing.outcome for firing in Firing.objects.all()}
    assert outcomes == {made.pk: "skipped_overlap", other.pk: "fired"}
    made.refresh_from_db()
    assert made.state == "active"
    with pytest.raises(queue.Duplicate):
        schedules.fire(made.pk)
