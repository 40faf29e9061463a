"""What every transport must do, run over each: the database's, and HTTP's through a gunicorn."""

import contextlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connection, connections, transaction

from dtsproject.conf import conf
from dtsproject.errors import Unreachable
from jobs import logs, queue
from jobs.models import Attempt, Lease, Task, Token
from jobs.specs import Ending, LogPart, TaskSpec
from jobs.states import Outcome
from tests.helpers import claim, ended, promote, register, shell, submit, wait_until
from tests.processes.conftest import Fleet
from workers.models import State, Worker
from workers.registry import NameTaken, Registration, Superseded
from workers.transports import http
from workers.transports.database import DatabaseTransport
from workers.transports.http import HttpTransport
from workers.transports.link import Link

pytestmark = pytest.mark.django_db(transaction=True)
TERMS = {"LEASE_SECONDS": 8.0, "HEARTBEAT_SECONDS": 1.0, "KILL_GRACE_SECONDS": 0.5}


@pytest.fixture(scope="module")
def server(django_db_setup, tmp_path_factory):
    made = Fleet(tmp_path_factory.mktemp("api"))
    made.api(**{f"DTS_{name}": str(value) for name, value in TERMS.items()})
    yield made
    made.end()


class Workers:
    """Makes transports of one kind, and remembers them to close."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url
        self.made: list = []

    def new(self, former_boot_id: uuid.UUID | None = None):
        if self.kind == "database":
            transport = DatabaseTransport()
        else:
            _, text = Token.issue(f"t{len(self.made)}", ["work"])
            transport = HttpTransport(self.url, lambda: text, former_boot_id)
        self.made.append(transport)
        return transport

    @contextlib.contextmanager
    def cut_off(self, transport):
        if self.kind == "database":
            with connection.cursor() as cursor, contextlib.suppress(OperationalError):
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            yield
        else:
            transport.link.close()
            transport._of_thread.link = Link("http://127.0.0.1:1", str)
            yield
            del transport._of_thread.link

    def close(self) -> None:
        for transport in self.made:
            if self.kind == "database":
                transport.listener.close()
            else:
                transport.link.close()

    def registered(self, name: str = "w1", **more):
        transport = self.new()
        transport.register(registration(name, **more))
        return transport


@pytest.fixture(params=["database", "http"])
def workers(request, settings):
    settings.DTS = {**settings.DTS, **TERMS} if request.param == "database" else settings.DTS
    url = request.getfixturevalue("server").url if request.param == "http" else ""
    made = Workers(request.param, url)
    yield made
    made.close()


def registration(name: str = "w1", **more) -> Registration:
    return Registration(
        **{"name": name, "boot_id": uuid.uuid4(), "machine_id": "m1", "slots": 2, **more}
    )


def test_a_worker_that_registers_is_there_with_all_it_said_and_hears_the_terms(workers):
    given = registration(
        capabilities=["gpu", "b"],
        queues=["q"],
        version="1",
        host="h",
        pid=7,
    )
    workers.new().register(given)

    worker = Worker.objects.get()
    assert (worker.name, worker.boot_id, worker.machine_id) == ("w1", given.boot_id, "m1")
    assert (worker.capabilities, worker.queues) == (["b", "gpu"], ["q"])
    assert (worker.slots, worker.version, worker.host, worker.pid) == (2, "1", "h", 7)
    assert {name: getattr(conf(), name.lower()) for name in TERMS} == TERMS


def test_the_name_of_a_live_worker_is_refused(workers):
    workers.registered("w1")
    with pytest.raises(NameTaken, match="another --name"):
        workers.new().register(registration("w1"))


def test_a_claim_brings_what_a_task_needs_to_run_in_policy_order(workers):
    transport = workers.registered()
    payload = {"cmd": "echo ü", "env": {"A": "1"}, "stdin": "a\nb"}
    late, first = submit(
        shell("true"),
        TaskSpec(payload=payload, name="n", priority=9, timeout_seconds=1.5),
    )
    function = {"function": "a.b", "args": [1, None], "kwargs": {"k": [2.5]}}
    (last,) = submit(TaskSpec(payload=function, kind="python"))
    promote()

    states, tasks = transport.exchange([], 10)

    assert states == {}
    assert [task.task_id for task in tasks] == [first.pk, late.pk, last.pk]
    head = tasks[0]
    assert head[:8] == (first.pk, first.job_id, "n", "shell", payload, 1, 1, 1.5)
    assert datetime.now(UTC) - head.claimed_at < timedelta(minutes=1)
    assert (tasks[2].kind, tasks[2].payload, tasks[2].timeout_seconds) == ("python", function, None)
    assert Lease.objects.filter(worker_id=transport.worker_id).count() == 3


def test_an_attempt_is_given_what_is_left_to_its_tasks_deadline(workers):
    transport = workers.registered(slots=3)
    limited, tight, late = submit(
        shell("a", timeout_seconds=7, deadline_seconds=1000),
        shell("b", timeout_seconds=70, deadline_seconds=60),
        shell("c", deadline_seconds=60),
    )
    promote()
    Task.objects.filter(pk=late.pk).update(deadline_at=datetime.now(UTC))

    _, tasks = transport.exchange([], 3)

    assert [task.task_id for task in tasks] == [limited.pk, tight.pk]
    assert tasks[0].timeout_seconds == 7
    assert 30 < tasks[1].timeout_seconds <= 60


def test_what_failed_here_by_its_rules_goes_elsewhere_first(workers):
    here, there = workers.registered("w1"), workers.registered("w2")
    rules = {"backoff": "fixed", "base_seconds": 0, "retry_on": [75], "elsewhere": True}
    submit(*[shell("x", max_retries=1, retry=rules)] * 2)
    promote()
    _, (one, two) = here.exchange([], 2)
    failures = [ended(one, Outcome.FAILED, exit_code=75), ended(two, Outcome.FAILED, exit_code=1)]

    states, _ = here.exchange(failures, 0)

    assert states == {one.task_id: "pending", two.task_id: "failed"}
    queue.bring_due(batch=1)
    promote()
    assert here.exchange([], 2)[1] == []
    assert [task.task_id for task in there.exchange([], 2)[1]] == [one.task_id]


def test_a_claim_brings_tasks_of_as_many_slots_as_are_asked_for_and_what_the_worker_serves(workers):
    transport = workers.registered(slots=4, capabilities=["mem_mb=3000"])
    submit(shell("a", slots=3), shell("b", slots=2), shell("c"))
    submit(shell("large", requires=["mem_mb>=2049"]), shell("more", slots=5))
    (fits,) = submit(shell("fits", requires=["mem_mb>=1025"], priority=-1))
    promote()

    _, (a,) = transport.exchange([], 4)
    assert (a.payload["cmd"], a.slots) == ("a", 3)
    states, found = transport.exchange([ended(a)], 4)

    assert states == {a.task_id: "done"}
    assert [(task.payload["cmd"], task.slots) for task in found] == [
        ("b", 2),
        ("c", 1),
        ("fits", 1),
    ]
    assert found[-1].task_id == fits.pk


def test_one_exchange_reports_and_claims(workers):
    transport = workers.registered()
    submit("a", "b", "c")
    promote()
    _, (one, two) = transport.exchange([], 2)

    states, (three,) = transport.exchange([ended(one), ended(two, Outcome.FAILED)], 2)

    assert states == {one.task_id: "done", two.task_id: "failed"}
    assert transport.exchange([ended(three, Outcome.RELEASED)], 0) == (
        {three.task_id: "queued"},
        [],
    )


def test_an_ending_arrives_with_all_it_says(workers):
    transport = workers.registered()
    submit("a", "b")
    promote()
    _, (one, two) = transport.exchange([], 2)
    killed = Ending(
        one.task_id,
        one.fencing_token,
        Outcome.FAILED,
        signal=9,
        cpu_seconds=0.25,
        peak_memory_bytes=2**33,
        error="killed by SIGKILL",
        result="\x1b[31mrot\x1b[0m \N{SNOWMAN}",
        output="x" * 5000,
    )

    transport.exchange([killed, ended(two, exit_code=0, result="1\n")], 0)

    first, second = Attempt.objects.order_by("task_id")
    assert (first.outcome, first.exit_code, first.signal) == ("failed", None, 9)
    assert (first.cpu_seconds, first.peak_memory_bytes) == (0.25, 2**33)
    assert (first.error, first.output) == (killed.error, killed.output)
    assert (second.outcome, second.exit_code, second.signal) == ("done", 0, None)
    texts = Task.objects.order_by("pk").values_list("result_text", flat=True)
    assert list(texts) == [killed.result, "1\n"]


def test_a_report_repeated_is_answered_alike_and_recorded_once(workers):
    transport = workers.registered()
    submit("a")
    promote()
    _, (task,) = transport.exchange([], 1)

    answers = [transport.exchange([ended(task)], 1) for _ in range(2)]

    assert answers == [({task.task_id: "done"}, [])] * 2
    assert Attempt.objects.count() == 1


def test_what_is_not_held_under_its_token_is_missing_in_the_answer(workers):
    transport = workers.registered()
    submit("mine", "another's")
    promote()
    _, (mine,) = transport.exchange([], 1)
    (theirs,) = claim(register("w2"))
    stale = ended(mine)._replace(fencing_token=mine.fencing_token + 1)

    assert transport.exchange([stale, ended(theirs)], 1) == ({}, [])
    assert transport.exchange([ended(mine), ended(theirs)], 0)[0] == {mine.task_id: "done"}
    assert Task.objects.get(pk=theirs.task_id).status == "in_progress"


def test_a_heartbeat_tells_what_was_lost_and_what_to_cancel(workers):
    transport = workers.registered()
    submit("a", "b", "c")
    promote()
    _, (kept, cancelled, lost) = transport.exchange([], 3)
    queue.cancel([cancelled.task_id])
    queue.report([ended(lost, Outcome.LOST)], proven=False)
    held = {task.task_id: task.fencing_token for task in (kept, cancelled, lost)}

    beat = transport.heartbeat(held, draining=False)

    assert (beat.lost, beat.cancelled) == ([lost.task_id], [cancelled.task_id])
    assert beat.state == State.ONLINE


def test_a_worker_says_that_it_drains_and_hears_that_it_shall(workers):
    transport = workers.registered()
    assert transport.heartbeat({}, draining=True).state == State.DRAINING
    submit("a")
    promote()
    assert transport.exchange([], 1) == ({}, [])

    other = workers.registered("w2")
    Worker.objects.filter(name="w2").update(state=State.DRAINING)
    assert other.heartbeat({}, draining=False).state == State.DRAINING


def test_a_heartbeat_renews(workers):
    transport = workers.registered()
    long_ago = datetime.now(UTC) - timedelta(seconds=100)
    Worker.objects.update(last_heartbeat=long_ago, state=State.LOST)

    assert transport.heartbeat({}, draining=False).state == State.ONLINE
    assert Worker.objects.get().last_heartbeat > long_ago + timedelta(seconds=50)


def test_a_replaced_boot_claims_nothing_and_learns_that_it_was_replaced(workers):
    old = workers.registered("w1")
    workers.registered("w1", former_boot_dead=True)
    submit("a")
    promote()

    with contextlib.suppress(Superseded):
        assert old.exchange([], 1) == ({}, [])
    with pytest.raises(Superseded):
        old.heartbeat({}, draining=False)
    assert Task.objects.get().status == "queued"
    with contextlib.suppress(Superseded):
        old.leave()
    assert Worker.objects.get().state == State.ONLINE


def test_output_is_stored_as_the_bytes_it_was_and_only_of_what_is_held(workers):
    transport = workers.registered()
    submit("mine", "another's")
    promote()
    _, (mine,) = transport.exchange([], 1)
    (theirs,) = claim(register("w2"))
    data = bytes(range(256)) * 40
    parts = [
        LogPart(mine.task_id, mine.fencing_token, "stdout", 0, data),
        LogPart(mine.task_id, mine.fencing_token, "stderr", 0, b"e"),
        LogPart(mine.task_id, mine.fencing_token, "stdout", len(data), b"more"),
        LogPart(theirs.task_id, theirs.fencing_token, "stdout", 0, b"not mine"),
    ]

    transport.log(parts)
    transport.log(parts[:1])

    assert logs.read(mine.task_id, 1, "stdout") == (data + b"more", len(data) + 4)
    assert logs.read(mine.task_id, 1, "stderr") == (b"e", 1)
    assert logs.read(theirs.task_id, 1, "stdout") == (b"", 0)


def test_a_next_boot_delivers_what_its_former_one_left(workers):
    former = workers.registered("w1")
    submit("a", "b")
    promote()
    _, (one, two) = former.exchange([], 2)
    parts = [LogPart(one.task_id, one.fencing_token, "stdout", 0, b"kept")]

    following = workers.new(former.boot_id)
    states = following.deliver("w1", [ended(one)], parts)
    following.register(registration("w1", former_boot_dead=True))

    assert states == {one.task_id: "done"}
    assert logs.read(one.task_id, 1, "stdout") == (b"kept", 4)
    assert Task.objects.get(pk=two.task_id).status == "queued"


def test_what_is_delivered_after_it_was_taken_back_is_dropped(workers):
    former = workers.registered("w1")
    submit("a")
    promote()
    _, (task,) = former.exchange([], 1)
    workers.registered("w1", former_boot_dead=True)

    assert workers.new(former.boot_id).deliver("w1", [ended(task)], []) == {}
    assert workers.new(former.boot_id).deliver("nobody", [ended(task)], []) == {}
    assert Task.objects.get().status == "queued"


def test_who_leaves_frees_its_name(workers):
    workers.registered("w1").leave()
    assert Worker.objects.get().state == State.GONE
    workers.registered("w1")


def test_a_call_without_an_answer_is_unreachable_and_the_next_one_connects_anew(workers):
    transport = workers.registered()
    with workers.cut_off(transport), pytest.raises(Unreachable):
        transport.exchange([], 1)
    assert transport.exchange([], 1) == ({}, [])


def test_a_heartbeat_is_answered_while_another_thread_waits_for_its_exchange(workers):
    transport = workers.registered()

    def exchange():
        try:
            return transport.exchange([], 1)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE ready")
            pending = pool.submit(exchange)
            wait_until(waiting_for_a_lock)
            if workers.kind == "http":  # the database's transport has this thread's connection
                assert transport.heartbeat({}, draining=False).state == State.ONLINE
            assert not pending.done()
        assert pending.result(20) == ({}, [])


def waiting_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0] > 0


def test_more_than_fits_into_one_request_goes_in_several(workers, monkeypatch):
    monkeypatch.setattr(http, "MOST_RECORDS", 2)
    transport = workers.registered(slots=10)
    submit(*"abcde")
    promote()
    _, tasks = transport.exchange([], 5)
    transport.log([LogPart(t.task_id, t.fencing_token, "stdout", 0, b"x") for t in tasks])
    submit("f")
    promote()

    states, (another,) = transport.exchange([ended(task) for task in tasks], 3)

    assert states == {task.task_id: "done" for task in tasks}
    assert [logs.read(t.task_id, 1, "stdout")[0] for t in tasks] == [b"x"] * 5
    assert another.task_id not in states
