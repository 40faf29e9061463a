"""The pages of workers, and what people may ask of them."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from jobs import queue
from jobs.models import AuditEvent
from tests.helpers import claim, ended, promote, register, running, shell, submit
from workers.models import State, Worker

pytestmark = pytest.mark.django_db

WORKERS = "/admin/workers/worker/"


def text(response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def act(client, action: str, *workers: Worker, **more) -> str:
    data = {"action": action, "_selected_action": [str(w.pk) for w in workers], **more}
    return text(client.post(WORKERS, data, follow=True))


def queries(client, url: str) -> int:
    client.get(url)
    with CaptureQueriesContext(connection) as found:
        assert client.get(url).status_code == 200
    return len(found)


def test_the_list_shows_state_and_slots(admin_client):
    running("a", "b", worker=register("alpha", slots=3, capabilities=["gpu"], host="node7"))
    register("beta")
    Worker.objects.filter(name="beta").update(last_heartbeat=Now() - timedelta(hours=1))
    register("gone")
    Worker.objects.filter(name="gone").update(state=State.GONE)
    page = text(admin_client.get(WORKERS))
    assert re.search(r"online alpha \d+ m?s ago 2/3 all gpu", page)
    assert re.search(r"silent beta 1 h ago 0/10", page)
    assert " gone " not in page
    assert " gone " in text(admin_client.get(f"{WORKERS}?state=gone"))


def test_a_workers_page_shows_what_it_runs_and_ran(admin_client):
    worker = register("alpha", slots=9, capabilities=["gpu", "mem_mb=3000"])
    first, _ = running("echo one", shell("echo two", slots=4), worker=worker)
    queue.report([ended(first)])
    page = text(admin_client.get(f"{WORKERS}{worker.pk}/change/"))
    assert "echo two" in page[page.index("Running now") : page.index("Last attempts")]
    assert "echo one" in page[page.index("Last attempts") :]
    assert "Capabilities gpu, mem_mb=3000 Started" in page
    assert "4/9" in page


def test_pages_ask_as_often_for_one_row_as_for_many(admin_client):
    worker = register("w0", slots=200)
    claims = running("true", worker=worker)
    page = f"{WORKERS}{worker.pk}/change/"
    few, list_few = queries(admin_client, page), queries(admin_client, WORKERS)
    submit(*["true"] * 150)
    promote()
    claims = claim(worker, 150)
    queue.report([ended(task) for task in claims[:100]])
    for n in range(1, 40):
        register(f"w{n}")
    assert queries(admin_client, page) == few <= 8
    assert queries(admin_client, WORKERS) == list_few <= 4


@pytest.mark.parametrize(
    ("action", "before", "after", "said"),
    [
        ("drain", State.ONLINE, State.DRAINING, "Asked 1 worker to finish and leave."),
        ("cordon", State.ONLINE, State.CORDONED, "Cordoned 1 worker: no new tasks."),
        ("uncordon", State.CORDONED, State.ONLINE, "Uncordoned 1 worker: new tasks again."),
    ],
)
def test_a_worker_is_told(admin_client, action, before, after, said):
    worker = register()
    Worker.objects.filter(pk=worker.pk).update(state=before)
    assert said in act(admin_client, action, worker, _page="1")
    worker.refresh_from_db()
    assert worker.state == after
    event = AuditEvent.objects.get()
    assert (event.actor, event.action, event.target) == ("admin", action, f"worker {worker.pk}")


def test_a_worker_in_another_state_is_named(admin_client):
    worker = register()
    assert "Uncordoned 0 workers: new tasks again; 1 could not be, being in another state." in act(
        admin_client, "uncordon", worker
    )


def test_nothing_is_edited_by_form(admin_client):
    worker = register()
    assert admin_client.get(f"{WORKERS}add/").status_code == 403
    assert admin_client.post(f"{WORKERS}{worker.pk}/change/", {"slots": 9}).status_code == 403
    assert admin_client.post(f"{WORKERS}{worker.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Worker.objects.get().slots == 10
