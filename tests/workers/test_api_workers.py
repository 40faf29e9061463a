"""The workers' door: what a worker without a database says and hears."""

import base64
import uuid

import pytest

from jobs import logs, queue
from jobs.models import Attempt, Lease, Task, Token
from jobs.states import Outcome
from tests.api import Client, pointers, problem
from tests.helpers import claim, promote, register, submit
from workers.models import State, Worker

pytestmark = pytest.mark.django_db

ME = {"name": "w1", "machine_id": "m1", "slots": 2}


@pytest.fixture
def client():
    return Client("work")


class Boot:
    """A worker that speaks HTTP."""

    def __init__(self, client, **more):
        self.client, self.boot_id = client, str(uuid.uuid4())
        answer = client.send("/api/v1/workers", {**ME, "boot_id": self.boot_id, **more})
        assert answer.status_code == 201, answer.content
        self.terms = answer.json()
        self.id = self.terms["id"]

    def say(self, verb, **body):
        path = f"/api/v1/workers/{self.id}/{verb}"
        return self.client.send(path, {"boot_id": self.boot_id, **body})

    def claim(self, limit=10):
        return self.say("claim", limit=limit).json()["tasks"]

    def report(self, *tasks, outcome="done", **more):
        held = [{k: t[k] for k in ("task_id", "fencing_token")} for t in tasks]
        return self.say("report", endings=[{**h, "outcome": outcome, **more} for h in held])


def held(task):
    return {"task_id": task["task_id"], "fencing_token": task["fencing_token"]}


def test_register_tells_the_terms(client):
    boot = Boot(client, capabilities=["gpu", "b"], queues=["q"], version="1", host="h", pid=7)
    assert {k: boot.terms[k] for k in ("name", "state", "lease_seconds", "heartbeat_seconds")} == {
        "name": "w1",
        "state": "online",
        "lease_seconds": 30.0,
        "heartbeat_seconds": 5.0,
    }
    worker = Worker.objects.get()
    assert (worker.capabilities, worker.queues, worker.slots) == (["b", "gpu"], ["q"], 2)
    assert str(worker.boot_id) == boot.boot_id


def test_a_name_has_one_live_worker_unless_its_former_boot_is_proved_dead(client):
    Boot(client)
    body = {**ME, "boot_id": str(uuid.uuid4())}
    problem(client.send("/api/v1/workers", body), 409, "worker_name_taken")
    assert client.send("/api/v1/workers", {**body, "former_boot_dead": True}).status_code == 201


def test_a_task_from_claim_to_done(client):
    boot = Boot(client)
    submit("echo 1", "echo 2")
    promote()
    (task,) = boot.claim(limit=1)
    assert (task["payload"], task["attempt"], task["kind"]) == ({"cmd": "echo 1"}, 1, "shell")
    beat = boot.say("heartbeat", held=[held(task)]).json()
    assert beat == {"state": "online", "lost": [], "cancelled": [], "ready": None}
    part = {**held(task), "stream": "stdout", "start": 0, "data": base64.b64encode(b"1\n").decode()}
    assert boot.say("log", parts=[part]).json() == {"stored": 1}
    assert boot.say("log", parts=[part]).json() == {"stored": 0}
    answer = boot.report(task, exit_code=0, cpu_seconds=0.5, peak_memory_bytes=2**33, result="1")
    assert answer.json() == {"results": [{**held(task), "accepted": True, "status": "done"}]}
    attempt = Attempt.objects.get()
    assert (attempt.exit_code, attempt.cpu_seconds, attempt.peak_memory_bytes) == (0, 0.5, 2**33)
    assert Task.objects.get(pk=task["task_id"]).result_text == "1"
    assert logs.read(task["task_id"], 1, "stdout") == (b"1\n", 2)


def test_a_report_repeated_is_answered_alike_and_recorded_once(client):
    boot = Boot(client)
    submit("a")
    promote()
    (task,) = boot.claim()
    first = boot.report(task)
    again = boot.report(task)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert Attempt.objects.count() == 1


def test_a_stale_report_is_refused_and_changes_nothing(client):
    boot = Boot(client)
    submit("a")
    promote()
    (task,) = boot.claim()
    boot.report(task, outcome="released")
    (again,) = boot.claim()
    assert again["fencing_token"] > task["fencing_token"]
    document = problem(boot.report(task), 409, "lease_lost")
    assert document["results"] == [{**held(task), "accepted": False, "status": None}]
    assert Task.objects.get().status == "in_progress"
    assert Lease.objects.get().fencing_token == again["fencing_token"]


def test_of_several_endings_each_has_its_own_answer(client):
    boot = Boot(client)
    submit("a", "b")
    promote()
    one, two = boot.claim()
    stale = {**two, "fencing_token": two["fencing_token"] + 5}
    answer = boot.report(one, stale)
    assert answer.status_code == 200
    assert [r["accepted"] for r in answer.json()["results"]] == [True, False]
    assert Task.objects.get(pk=two["task_id"]).status == "in_progress"


def test_a_worker_touches_only_its_own_leases(client):
    other = register("w2")
    submit("a")
    promote()
    (task,) = claim(other)
    boot = Boot(client)
    theirs = {"task_id": task.task_id, "fencing_token": task.fencing_token}
    problem(boot.report(theirs), 409, "lease_lost")
    part = {**theirs, "stream": "stdout", "start": 0, "data": "eA=="}
    assert boot.say("log", parts=[part]).json() == {"stored": 0}
    assert boot.say("heartbeat", held=[theirs]).json()["lost"] == [task.task_id]
    assert Task.objects.get().status == "in_progress"


def test_the_heartbeat_hears_of_cancels_and_of_drain(client):
    boot = Boot(client)
    submit("a")
    promote()
    (task,) = boot.claim()
    queue.cancel([task["task_id"]])
    Client("operate").send(f"/api/v1/workers/{boot.id}/drain")
    beat = boot.say("heartbeat", held=[held(task)]).json()
    cancelled = [task["task_id"]]
    assert beat == {"state": "draining", "lost": [], "cancelled": cancelled, "ready": None}


def test_a_worker_may_say_that_it_drains(client):
    boot = Boot(client)
    assert boot.say("heartbeat", held=[], draining=True).json()["state"] == "draining"
    submit("a")
    promote()
    assert boot.claim() == []


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("claim", {"limit": 1}),
        ("exchange", {"endings": [], "limit": 1}),
        ("heartbeat", {"held": []}),
        ("report", {"endings": [{"task_id": 1, "fencing_token": 1, "outcome": "done"}]}),
        (
            "log",
            {
                "parts": [
                    {
                        "task_id": 1,
                        "fencing_token": 1,
                        "stream": "stdout",
                        "start": 0,
                        "data": "eA==",
                    }
                ]
            },
        ),
        ("leave", {}),
    ],
)
def test_a_replaced_boot_can_do_nothing(client, verb, body):
    old = Boot(client)
    new = Boot(client, former_boot_dead=True)
    assert old.id == new.id
    problem(old.say(verb, **body), 409, "worker_superseded")
    old.id = 10**9
    problem(old.say(verb, **body), 404, "not_found")
    assert Worker.objects.get().state == State.ONLINE


def deliver(boot, **body):
    """What the boot of w1, or of another name, left behind."""
    given = {"name": boot.terms["name"], "boot_id": boot.boot_id, **body}
    return boot.client.send("/api/v1/workers/deliver", given)


def test_the_next_start_delivers_what_the_last_one_left(client):
    boot = Boot(client)
    submit("a")
    promote()
    (task,) = boot.claim()
    parts = [{**held(task), "stream": "stdout", "start": 0, "data": "eA=="}]

    answer = deliver(boot, endings=[{**held(task), "outcome": "done"}], parts=parts)

    assert answer.json() == {"results": [{**held(task), "accepted": True, "status": "done"}]}
    assert logs.read(task["task_id"], 1, "stdout") == (b"x", 1)


def test_once_another_has_its_name_a_boot_delivers_nothing(client):
    old = Boot(client)
    submit("a")
    promote()
    (task,) = old.claim()
    new = Boot(client, former_boot_dead=True)
    (again,) = new.claim()

    for token in (task, again):
        left = {"endings": [{**held(token), "outcome": "done"}]}
        problem(deliver(old, **left), 409, "worker_superseded")
    parts = [{**held(again), "stream": "stdout", "start": 0, "data": "eA=="}]
    problem(deliver(old, parts=parts), 409, "worker_superseded")
    old.terms["name"] = "w2"
    problem(deliver(old), 409, "worker_superseded")

    assert Task.objects.get().status == "in_progress"
    assert logs.read(task["task_id"], again["attempt"], "stdout") == (b"", 0)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"boot_id": "x"}, "#/boot_id"),
        ({"name": "a b"}, "#/name"),
        ({"endings": [{"task_id": 1}]}, "#/endings/0/fencing_token"),
        ({"parts": [{"task_id": 1}]}, "#/parts/0/fencing_token"),
        ({"limit": 1}, "#/limit"),
    ],
)
def test_deliveries_that_are_not_valid(client, body, place):
    assert place in pointers(problem(deliver(Boot(client), **body), 400, "invalid"))


def test_leave_frees_the_name(client):
    boot = Boot(client)
    answer = boot.say("leave")
    assert (answer.status_code, answer.content) == (204, b"")
    assert Worker.objects.get().state == State.GONE
    Boot(client)


def test_a_cancelled_tasks_report_repeated_is_answered_alike(client):
    boot = Boot(client)
    submit("a")
    promote()
    (task,) = boot.claim()
    queue.cancel([task["task_id"]])
    first = boot.report(task, outcome=Outcome.FAILED, exit_code=143)
    assert first.json()["results"][0]["status"] == "cancelled"
    again = boot.report(task, outcome=Outcome.FAILED, exit_code=143)
    assert (again.status_code, again.json()) == (200, first.json())


# -- bad input ---------------------------------------------------------------------------------

ENDING = {"task_id": 1, "fencing_token": 1, "outcome": "done"}
PART = {"task_id": 1, "fencing_token": 1, "stream": "stdout", "start": 0, "data": "eA=="}


@pytest.mark.parametrize(
    ("verb", "body", "place"),
    [
        ("claim", {}, "#/limit"),
        ("claim", {"limit": 0}, "#/limit"),
        ("claim", {"limit": 1001}, "#/limit"),
        ("claim", {"limit": "5"}, "#/limit"),
        ("claim", {"limit": 5, "max": 1}, "#/max"),
        ("claim", {"limit": 5, "boot_id": "x"}, "#/boot_id"),
        ("claim", {"limit": 5, "boot_id": 5}, "#/boot_id"),
        ("exchange", {"endings": []}, "#/limit"),
        ("exchange", {"endings": [], "limit": -1}, "#/limit"),
        ("exchange", {"endings": [ENDING, ENDING], "limit": 1}, "#/endings"),
        (
            "exchange",
            {"endings": [{**ENDING, "outcome": "fine"}], "limit": 1},
            "#/endings/0/outcome",
        ),
        ("exchange", {"endings": [], "limit": 1, "boot_id": "x"}, "#/boot_id"),
        ("heartbeat", {}, "#/held"),
        ("heartbeat", {"held": {"1": 1}}, "#/held"),
        ("heartbeat", {"held": [{"task_id": 1}]}, "#/held/0/fencing_token"),
        ("heartbeat", {"held": [{"task_id": 2**63, "fencing_token": 1}]}, "#/held/0/task_id"),
        ("heartbeat", {"held": [], "draining": "yes"}, "#/draining"),
        ("report", {"endings": []}, "#/endings"),
        ("report", {"endings": [ENDING, ENDING]}, "#/endings"),
        ("report", {"endings": [{**ENDING, "outcome": "fine"}]}, "#/endings/0/outcome"),
        ("report", {"endings": [{**ENDING, "exit_code": 2**31}]}, "#/endings/0/exit_code"),
        ("report", {"endings": [{**ENDING, "signal": 2**15}]}, "#/endings/0/signal"),
        ("report", {"endings": [{**ENDING, "cpu_seconds": -1}]}, "#/endings/0/cpu_seconds"),
        ("report", {"endings": [{**ENDING, "result": 5}]}, "#/endings/0/result"),
        ("report", {"endings": [{**ENDING, "result": "a\0"}]}, "#/endings/0/result"),
        ("log", {"parts": [{**PART, "data": "?"}]}, "#/parts/0/data"),
        ("log", {"parts": [{**PART, "data": "ü"}]}, "#/parts/0/data"),
        ("log", {"parts": [{**PART, "stream": "log"}]}, "#/parts/0/stream"),
        ("log", {"parts": [{**PART, "start": -1}]}, "#/parts/0/start"),
        ("leave", {"boot_id": None}, "#/boot_id"),
    ],
)
def test_bodies_that_are_not_valid(client, verb, body, place):
    assert place in pointers(problem(Boot(client).say(verb, **body), 400, "invalid"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a b"),
        ("name", "x" * 101),
        ("slots", 0),
        ("slots", 40_000),
        ("capabilities", ["a", 1]),
        ("queues", "q"),
        ("pid", -1),
        ("pid", 2**31),
        ("former_boot_dead", 1),
        ("state", "online"),
    ],
)
def test_registrations_that_are_not_valid(client, field, value):
    body = {**ME, "boot_id": str(uuid.uuid4()), field: value}
    (pointer, *_) = pointers(problem(client.send("/api/v1/workers", body), 400, "invalid"))
    assert pointer.startswith(f"#/{field}")
    assert not Worker.objects.exists()


@pytest.fixture
def bound():
    """A client whose token is for the worker w1."""
    client = Client("work", name="of w1")
    Token.objects.filter(name="of w1").update(worker_name="w1")
    return client


def test_a_bound_token_is_its_worker(bound):
    boot = Boot(bound)
    submit("true")
    promote()
    (task,) = boot.claim()
    assert boot.say("heartbeat", held=[held(task)]).status_code == 200
    assert boot.report(task).status_code == 200
    assert boot.say("leave").status_code == 204


def test_a_bound_token_reads_what_its_scopes_let_it_read(bound, client):
    Token.objects.filter(worker_name="w1").update(scopes=["read"])
    other = Boot(client, name="w2")
    assert bound.get(f"/api/v1/workers/{other.id}").status_code == 200


def test_a_bound_token_can_neither_be_nor_speak_for_another(bound, client):
    other = Boot(client, name="w2")
    submit("true")
    promote()
    (task,) = other.claim()
    taken = {**ME, "name": "w2", "boot_id": str(uuid.uuid4()), "former_boot_dead": True}
    problem(bound.send("/api/v1/workers", taken), 403, "not_this_worker")
    other.client = bound  # which even knows the secret boot id
    for verb, body in {
        "claim": {"limit": 1},
        "exchange": {"endings": [{**held(task), "outcome": "done"}], "limit": 1},
        "heartbeat": {"held": []},
        "report": {"endings": [{**held(task), "outcome": "done"}]},
        "log": {"parts": [{**held(task), "stream": "stdout", "start": 0, "data": ""}]},
        "leave": {},
    }.items():
        problem(other.say(verb, **body), 403, "not_this_worker")
    left = {"endings": [{**held(task), "outcome": "done"}]}
    problem(deliver(other, **left), 403, "not_this_worker")
    assert Task.objects.get().status == "in_progress"
    problem(bound.send("/api/v1/workers/999/claim", {}), 403, "not_this_worker")
