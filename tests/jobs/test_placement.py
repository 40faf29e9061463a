"""What no live worker can run says so at once."""

import pytest
from django.core.management import CommandError, call_command

from jobs import placement
from jobs.models import Task
from jobs.placement import Offer, lacking
from scheduling.explain import why
from tests.api import Client
from tests.helpers import register
from workers.models import State, Worker

pytestmark = pytest.mark.django_db

SMALL = Offer(["gpu", "mem_mb=2000", "mem_mb>=1024"], [], 2, True)
LARGE = Offer(["eu", "mem_mb=9000", "mem_mb>=1024", "mem_mb>=8192"], [], 8, True)
LACKING = [
    ((), 1, [], "No worker is running."),
    ((), 1, [SMALL._replace(queues=["a", "b"])], "No live worker serves the queue q."),
    (("gpu",), 1, [LARGE], "No live worker offers gpu."),
    (("a", "gpu", "b"), 1, [LARGE, SMALL], "No live worker offers a, b."),
    (("gpu",), 1, [SMALL._replace(queues=["a"]), LARGE], "No live worker offers gpu."),
    (("eu", "gpu"), 1, [LARGE, SMALL], "No live worker offers eu and gpu together."),
    (
        ("mem_mb>=2048",),
        1,
        [SMALL],
        "No live worker offers mem_mb>=2048 (sizes are rounded up to powers of two; the most is "
        "mem_mb=2000).",
    ),
    (("disk>=4",), 1, [SMALL], "No live worker offers disk>=4."),
    ((), 9, [SMALL, LARGE], "It needs 9 slots; the largest live worker has 8."),
    (
        ("gpu",),
        8,
        [SMALL, LARGE],
        "It needs 8 slots; the largest live worker that offers gpu has 2.",
    ),
    (
        (),
        3,
        [SMALL, LARGE._replace(takes_new=False)],
        "The live workers that could run it take nothing new: they are cordoned, or drain.",
    ),
    (("eu", "mem_mb>=8192"), 8, [SMALL, LARGE], ""),
    ((), 1, [SMALL._replace(queues=["q"])], ""),
]


@pytest.mark.parametrize(("requires", "slots", "live", "sentence"), LACKING)
def test_what_is_lacking(requires, slots, live, sentence):
    assert lacking("q", requires, slots, live) == sentence


PLAIN = {"payload": {"cmd": "true"}}


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(placement, "CACHED_SECONDS", -1)


@pytest.fixture
def client():
    return Client("read", "submit")


def submitted(client, *tasks):
    return client.send("/api/v1/jobs", {"name": "a", "tasks": tasks}).json()


def test_a_submit_is_warned_of_what_nobody_can_run_and_stored_all_the_same(client):
    register(slots=4, capabilities=["eu", "mem_mb=2000"])
    large = {**PLAIN, "requires": ["mem_mb>=4000"]}
    wide = {**PLAIN, "slots": 5}
    fits = {**PLAIN, "requires": ["mem_mb>=1000", "eu"], "slots": 4}

    made = submitted(client, PLAIN, large, fits, wide, large, {**large, "priority": 3})

    assert [(it["pointer"], it["tasks"]) for it in made["warnings"]] == [
        ("#/tasks/1", 3),
        ("#/tasks/3", 1),
    ]
    assert "mem_mb>=4096" in made["warnings"][0]["detail"]
    assert "largest live worker has 4" in made["warnings"][1]["detail"]
    assert made["counts"]["pending"] == 6
    for warning in made["warnings"]:
        number = int(warning["pointer"].rpartition("/")[2])
        task = Task.objects.order_by("pk")[number]
        assert client.get(f"/api/v1/tasks/{task.pk}/why").json()["reason"] == warning["detail"]


def test_what_requires_nothing_is_not_looked_at(client, monkeypatch):
    def never() -> None:
        raise AssertionError

    monkeypatch.setattr(placement, "offers", never)
    assert submitted(client, PLAIN)["warnings"] == []


def test_a_look_is_remembered_for_a_second(client, monkeypatch):
    monkeypatch.setattr(placement, "CACHED_SECONDS", 60)
    monkeypatch.setattr(placement, "recent", placement.Recent())
    needy = {**PLAIN, "requires": ["gpu"]}
    assert submitted(client, needy)["warnings"][0]["detail"] == "No worker is running."
    register(capabilities=["gpu"])
    assert submitted(client, needy)["warnings"]
    monkeypatch.setattr(placement, "CACHED_SECONDS", 0)
    assert not submitted(client, needy)["warnings"]


@pytest.mark.parametrize("state", [State.CORDONED, State.DRAINING])
def test_workers_that_take_nothing_new(client, state):
    register(capabilities=["gpu"])
    Worker.objects.update(state=state)
    submitted(client, {**PLAIN, "requires": ["gpu"]})
    assert why(Task.objects.get()).startswith("The live workers that could run it take nothing new")


def test_a_clone_and_lines_are_warned_of_too(client):
    made = submitted(client, PLAIN, {**PLAIN, "requires": ["gpu"]})
    clone = client.send(f"/api/v1/jobs/{made['id']}/clone").json()
    assert clone["warnings"] == made["warnings"] != []


def test_the_command_warns_on_standard_error(capsys):
    call_command("submit", "true", "--requires", "gpu,mem_mb>=2000", "--slots", "3")
    out, err = capsys.readouterr()
    task = Task.objects.get()
    assert out == f"{task.job_id}\n"
    assert err == "warning: #/tasks/0: No worker is running.\n"
    assert (task.requires, task.slots) == (["gpu", "mem_mb>=2048"], 3)
    with pytest.raises(CommandError, match=r"#/tasks/0/requires/0: .* such as mem_mb>=2000"):
        call_command("submit", "true", "--requires", "mem_mb>2000")
    with pytest.raises(CommandError, match="#/tasks/0/slots"):
        call_command("submit", "true", "--slots", "0")
    assert Task.objects.count() == 1
